"""What a cluster is made of, in one class: the server's settings, the replicas of its engines and of its ingress.

Read from ``cluster.yaml`` and flags by ``florence2 cluster serve``, or from the arguments of a KubeRay manifest. Imports neither Ray nor
torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from florence2.errors import InvalidOption
from florence2.server.profiles import EVERY_ADDRESS
from florence2.server.settings import Settings, read_settings
from florence2.version import __version__

MAX_ROWS = 48
"""The rows of an engine by default; ``engine.engine.DEFAULT_MAX_ROWS``, which can't be imported without torch."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    min_replicas: int = Field(default=1, ge=0, description="So many there are at least.")
    max_replicas: int = Field(default=1, ge=1, description="So many there are at most.")
    num_cpus: float = Field(default=1.0, gt=0, description="Processor cores for each.")

    @model_validator(mode="after")
    def _has_room(self) -> _Part:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas is at most max_replicas, got {self.min_replicas} and {self.max_replicas}")
        return self


class EnginesConfig(_Part):
    """The replicas that have the models."""

    num_gpus: float = Field(default=0.0, ge=0, description="GPUs for each.")
    target_rows: int = Field(default=MAX_ROWS * 2 // 3, ge=1, description="Rows, running and waiting, for which one replica is right.")
    max_ongoing: int = Field(default=MAX_ROWS + MAX_ROWS // 3, ge=1, description="Most requests at one replica.")
    models_per_replica: int = Field(default=4, ge=1, description="Most models at one replica.")
    upscale_delay_s: float = Field(default=5.0, ge=0, description="How long more replicas must be needed before they are started.")
    downscale_delay_s: float = Field(default=60.0, ge=0, description="How long fewer must be enough before some are ended.")


class IngressConfig(_Part):
    """The replicas that speak HTTP."""

    min_replicas: int = Field(default=1, ge=1, description="So many there are at least.")
    max_ongoing: int = Field(default=10_000, ge=1, description="Most requests at one replica; the server's own limits are lower.")


class ClusterConfig(BaseModel):
    """Everything that a cluster's application is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    settings: dict[str, Any] = Field(default={}, description="Settings of the server, by the names of its TOML file.")
    engines: EnginesConfig = EnginesConfig()
    ingress: IngressConfig = IngressConfig()
    routing: Literal["image", "load"] = Field(default="image", description="Whether requests about one image go to one replica.")

    @cached_property
    def server_settings(self) -> Settings:
        """The server's settings: those given, then the environment's and the defaults.

        Raises:
            InvalidOption: one of them is wrong.
        """
        return read_settings({"host": EVERY_ADDRESS, **self.settings})

    @property
    def engine_settings(self) -> Settings:
        """The settings of a replica with engines: its threads are those of its cores, not of the machine that reads this."""
        cores = math.ceil(self.engines.num_cpus)
        given = self.server_settings
        own = {"image_threads": min(4, cores), "image_processes": min(2, cores), "max_loaded_models": self.engines.models_per_replica}
        return given.model_copy(update={name: value for name, value in own.items() if name not in given.model_fields_set})

    @property
    def ingress_settings(self) -> Settings:
        """The settings of a replica of the ingress: room for the requests of all engines."""
        given = self.server_settings
        own = {"max_requests": given.max_requests * self.engines.max_replicas, "image_threads": math.ceil(self.ingress.num_cpus)}
        return given.model_copy(update={name: value for name, value in own.items() if name not in given.model_fields_set})

    @property
    def version(self) -> str:
        """What tells this configuration and this version of the package from others: replicas of another one are replaced."""
        told = json.dumps([__version__, self.model_dump(mode="json")], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def cluster_config(values: Mapping[str, Any], where: str) -> ClusterConfig:
    """The configuration of a mapping.

    Args:
        values: by the names of ``ClusterConfig``.
        where: what they were read from, for errors.

    Raises:
        InvalidOption: a name or value is wrong.
    """
    try:
        return ClusterConfig(**values)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False))
        raise InvalidOption(f"{where}: {said}", field="config") from None


def read_cluster_config(path: Path | None) -> dict[str, Any]:
    """What a file in YAML says; empty without one.

    Raises:
        InvalidOption: it can't be read, or is no mapping.
    """
    if path is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidOption(f"{path} can't be read as YAML: {error}", field="config") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidOption(f"{path} holds no mapping such as 'engines: {{max_replicas: 4}}'", field="config")
    return values
