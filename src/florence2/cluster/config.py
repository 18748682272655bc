"""What a cluster is made of, in one class: the server's settings, the replicas of its engines and of its ingress.

Read by ``florence2 cluster serve``, or from the arguments of a KubeRay manifest. The server's settings are read once, here; replicas get
them as they are then, whatever their own environment says. Imports neither Ray nor torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from florence2.errors import InvalidOption
from florence2.server.accounts.given_keys import read_keys
from florence2.server.profiles import EVERY_ADDRESS
from florence2.server.setting_sources import FOLDERS
from florence2.server.setting_words import in_plain_words
from florence2.server.settings import KEY_LISTS, Settings, read_settings, set_elsewhere
from florence2.version import __version__
from florence2.weights.aliases import ALIASES

MAX_ROWS = 48
"""The rows of an engine by default; ``engine.engine.DEFAULT_MAX_ROWS``, which can't be imported without torch."""

PATHS = ("image_folder", "journal_folder")
"""Settings with paths that replicas use: a relative one is meant from the folder where it was read."""

OF_INGRESS = frozenset(
    {
        *KEY_LISTS,
        *("database", "keys_outage_s", "limits_url", "usage", "journal_folder", "require_keys", "allow_anonymous", "allow_key_in_header"),
        *("host", "port", "public_url", "allow_origins", "allow_hosts", "trusted_proxies", "request_id_header", "open_metrics", "metrics"),
        *("max_images", "max_body_bytes", "max_bodies_bytes", "max_keyless_bodies", "max_requests_per_key", "playground"),
        *("header_timeout_s", "body_timeout_s", "keyless_body_timeout_s", "answer_timeout_s", "max_connections", "image_folder"),
        *("allow_urls", "allow_http_urls", "allow_urls_without_domain", "allow_private_urls", "url_allow_list", "url_deny_list"),
        *("max_url_redirects", "url_timeout_s", "otlp_endpoint", "trace_ratio"),
    }
)
"""Settings that replicas with engines do not get, the secrets among them: who changes one of these loads no model anew."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    min_replicas: int = Field(default=1, ge=0, description="So many there are at least.")
    max_replicas: int = Field(default=1, ge=1, description="So many there are at most.")
    num_cpus: float = Field(default=1.0, gt=0, description="Processor cores for each.")
    max_surge_percent: int = Field(
        default=25,
        ge=0,
        le=100,
        description="So many more, in percent and at least one, an update starts before old ones end. 0: old ones end first, where there "
        "is no room for one more; with one replica, requests wait until the new one is ready.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_number(cls, values: Any) -> Any:
        """Where only the fewest are given, the most are not fewer."""
        fewest = values.get("min_replicas") if isinstance(values, Mapping) else None
        if isinstance(fewest, int) and "max_replicas" not in values:
            return {**values, "max_replicas": max(fewest, 1)}
        return values

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
    target_ongoing: int = Field(default=200, ge=1, description="Requests under way for which one replica is right.")


class ClusterConfig(BaseModel):
    """Everything that a cluster's application is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    settings: dict[str, Any] = Field(default={}, description="Settings of the server, by the names of its TOML file.", repr=False)
    engines: EnginesConfig = EnginesConfig()
    ingress: IngressConfig = IngressConfig()
    routing: Literal["image", "load"] = Field(default="image", description="Whether requests about one image go to one replica.")

    @cached_property
    def server_settings(self) -> Settings:
        """The server's settings; replicas find them here as they were where the configuration was read.

        Raises:
            InvalidOption: one of them is wrong.
        """
        return self.read_settings({}, lambda name: f"settings.{name}")

    def read_settings(self, flags: Mapping[str, Any], origin: Callable[[str], str], host: str | None = EVERY_ADDRESS) -> Settings:
        """The server's settings: flags, then the environment, then those of the configuration, then the profile's and the defaults.

        Args:
            flags: by the names of the settings.
            origin: where one of the configuration stands, by its name, for errors.
            host: the address to listen on where nothing else is said. None: the profile's, as on one machine.
        """
        given = {name: value for name, value in self.settings.items() if name not in flags and not set_elsewhere(name, flags)}
        own = {} if host is None or set_elsewhere("host", flags) else {"host": host}
        settings = read_settings({**own, **given, **flags}, {name: origin(name) for name in given})
        return _independent(settings)

    def with_settings(self, settings: Settings) -> ClusterConfig:
        """The same for a replica: with these settings, and nothing else of those that were given."""
        config = self.model_copy(update={"settings": {}})
        vars(config)["server_settings"] = settings
        return config

    def without_surge(self) -> ClusterConfig:
        """The same, whose updates end old replicas before they start new ones."""
        parts = {name: getattr(self, name).model_copy(update={"max_surge_percent": 0}) for name in ("engines", "ingress")}
        return self.model_copy(update=parts)

    @property
    def engine_settings(self) -> Settings:
        """The settings of a replica with engines: its threads are those of its cores, not of the machine that reads this."""
        cores = math.ceil(self.engines.num_cpus)
        own = {"image_threads": min(4, cores), "image_processes": min(2, cores), "max_loaded_models": self.engines.models_per_replica}
        given = self._with_defaults(own)
        others = {name: Settings.model_fields[name].get_default() for name in OF_INGRESS if name in given.model_fields_set}
        return given.model_copy(update=others)

    @property
    def ingress_settings(self) -> Settings:
        """The settings of a replica of the ingress: room for the requests of all engines."""
        most = self.server_settings.max_requests * self.engines.max_replicas
        return self._with_defaults({"max_requests": most, "image_threads": math.ceil(self.ingress.num_cpus)})

    def _with_defaults(self, own: Mapping[str, Any]) -> Settings:
        given = self.server_settings
        return given.model_copy(update={name: value for name, value in own.items() if name not in given.model_fields_set})

    def version_of(self, *parts: BaseModel | str) -> str:
        """What tells replicas that are made of these parts, and of this version of the package, from others, which are replaced."""
        told = [part if isinstance(part, str) else _plain(part) for part in parts]
        return hashlib.sha256(json.dumps([__version__, *told], sort_keys=True).encode()).hexdigest()[:16]


def cluster_config(values: Mapping[str, Any], where: str, place: Callable[[tuple[int | str, ...]], str] = lambda _: "") -> ClusterConfig:
    """The configuration of a mapping.

    Args:
        values: by the names of ``ClusterConfig``.
        where: what they were read from, for errors.
        place: where in it something stands, such as ``, line 3``, by its path.

    Raises:
        InvalidOption: a name or value is wrong.
    """
    try:
        return ClusterConfig(**values)
    except ValidationError as error:
        said = (f"{where}{place(part['loc'])}: {_complaint(part['loc'], part['msg'])}" for part in error.errors(include_input=False))
        raise InvalidOption("; ".join(said), field="config") from None
    except TypeError:  # a key that is no text
        raise InvalidOption(f"{where}: the names are {', '.join(ClusterConfig.model_fields)}", field="config") from None


def _complaint(path: tuple[int | str, ...], message: str) -> str:
    """What is wrong with a value, with the name that was meant."""
    name = ".".join(map(str, path))
    if message == "Extra inputs are not permitted":
        names = list((_part_of(path[:-1]) or ClusterConfig).model_fields)
        close = difflib.get_close_matches(str(path[-1]), names, n=1)
        return f"there is no {name} (did you mean {close[0]}?)" if close else f"there is no {name}; there are {', '.join(names)}"
    if "a valid dictionary" in message:
        example = "{port: 9001}" if name == "settings" else "{max_replicas: 4}"
        return f"{name} must be a mapping such as {example}"
    return f"{name} {in_plain_words(message)}" if name else in_plain_words(message)


def _part_of(path: tuple[int | str, ...]) -> type[BaseModel] | None:
    return {("engines",): EnginesConfig, ("ingress",): IngressConfig}.get(path)  # type: ignore[call-overload]


def _independent(settings: Settings) -> Settings:
    """Settings that mean the same on every machine: keys as they stand in their files, absolute paths."""
    update: dict[str, Any] = {}
    for name in KEY_LISTS:
        path: Path | None = getattr(settings, f"{name}_file")
        if path is not None:
            update[name] = [*getattr(settings, name), *map(SecretStr, read_keys(path, f"{name}_file"))]
            update[f"{name}_file"] = None
    update |= {name: _absolute(getattr(settings, name)) for name in FOLDERS}
    update |= {name: path.absolute() for name in PATHS if (path := getattr(settings, name)) is not None}
    changed = {name: value for name, value in update.items() if value != getattr(settings, name)}
    return settings.model_copy(update=changed) if changed else settings


def _absolute(value: Any) -> Any:
    """A model or several, their folders with absolute paths; behind a ``=`` or ``+`` as well."""
    if isinstance(value, str):
        parts = re.split("([=+])", value)
        return "".join(str(Path(part).absolute()) if part not in ALIASES and Path(part).is_dir() else part for part in parts)
    return {name: _absolute(one) for name, one in value.items()} if isinstance(value, Mapping) else [_absolute(one) for one in value]


def _plain(part: BaseModel) -> Any:
    """All values of a part, secrets among them, as JSON has them; only to be hashed."""
    return {name: _revealed(value) for name, value in part if name != "settings"}


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return _plain(value)
    if isinstance(value, list):
        return [_revealed(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str | dict) else str(value)
