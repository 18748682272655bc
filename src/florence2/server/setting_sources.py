"""Where settings are written: the environment, under this project's names and under Roboflow's, and a TOML file.

In: the environment or a file. Out: values by the name of the setting, and for a value that can't be, the variable, flag or line that holds
it. What orchestrators set for purposes of their own (``FLORENCE2_PORT=tcp://…`` for a Kubernetes Service of that name) is no setting.
Knows nothing of what the values do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from florence2.errors import InvalidOption

PREFIX = "FLORENCE2_"
# What OpenTelemetry's own names of the collector's address are followed by, the stronger one first.
OTLP_NAMES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "/v1/traces"}
FOREIGN_NAMES: dict[str, str] = {
    "HOST": "host",
    "PORT": "port",
    "SSL_CERTFILE": "ssl_certfile",
    "SSL_KEYFILE": "ssl_keyfile",
    "ALLOW_ORIGINS": "allow_origins",
    "ALLOW_API_KEY_FROM_HEADERS": "allow_key_in_header",
    "PRELOAD_MODELS": "model",
    "DEVICE": "device",
    "MAX_ACTIVE_MODELS": "max_loaded_models",
    "MODEL_LOCK_ACQUIRE_TIMEOUT": "model_wait_s",
    "ALLOW_URL_INPUT": "allow_urls",
    "ALLOW_NON_HTTPS_URL_INPUT": "allow_http_urls",
    "ALLOW_URL_INPUT_WITHOUT_FQDN": "allow_urls_without_domain",
    "ALLOW_URL_TO_NON_GLOBAL_ADDRESSES": "allow_private_urls",
    "WHITELISTED_DESTINATIONS_FOR_URL_INPUT": "url_allow_list",
    "BLACKLISTED_DESTINATIONS_FOR_URL_INPUT": "url_deny_list",
    "MAX_IMAGE_URL_REDIRECTS": "max_url_redirects",
    "GET_MODEL_REGISTRY_ENABLED": "allow_model_registry",
    "METRICS_ENABLED": "metrics",
    "LOG_LEVEL": "log_level",
    "STRUCTURED_API_LOGGING": "log_json",
    "CORRELATION_ID_HEADER": "request_id_header",
}
"""Names of Roboflow's server, and the setting that each means; read where ``roboflow_names`` is set."""

FOLDERS = frozenset({"model", "models", "adapter"})
"""Settings that may name folders of models."""

# Names that shells, platforms and other programs set: to find one of them says nothing about who wrote it.
_COMMON_NAMES = frozenset({"HOST", "PORT", "DEVICE", "LOG_LEVEL", "SSL_CERTFILE", "SSL_KEYFILE", "ALLOW_ORIGINS", "METRICS_ENABLED"})
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*", re.IGNORECASE)
_SERVICE_NAME = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)")


@dataclass(frozen=True)
class Given:
    """The value of a setting and where it stands, as its writer knows it."""

    value: Any
    origin: str

    def parsed(self, name: str) -> Any:
        """A text as the value of a setting: mappings are JSON, all else goes on as it is.

        Raises:
            InvalidOption: no JSON.
        """
        if name != "models":
            return self.value
        try:
            return json.loads(self.value)
        except ValueError as error:
            expected = 'expected a JSON object such as {"florence-2-base": "/data/base"}'
            raise InvalidOption(f"models ({self.origin}): {expected}, but it is no JSON: {error}", field=name) from None


def found(environment: Mapping[str, str], flags: Mapping[str, Any], kind: type[BaseSettings]) -> dict[str, Given]:
    """All settings that environment and file give, the stronger source over the weaker one.

    Raises:
        InvalidOption: a file that is not there or no TOML, a mapping that is no JSON.
    """
    own = own_values(environment, kind.model_fields)
    config = flags.get("config") or (own["config"].value if "config" in own else None)
    in_file = {} if config is None else read_file(Path(config), kind)
    switch = flags.get("roboflow_names", own["roboflow_names"].value if "roboflow_names" in own else in_file.get("roboflow_names", False))
    foreign = foreign_values(environment) if _is_true(switch) else {}
    return {**standard_values(environment), **_with_lines(config, in_file), **foreign, **own}


def own_values(environment: Mapping[str, str], names: Mapping[str, Any]) -> dict[str, Given]:
    """Each setting in ``names`` that the environment gives by this project's name; what is empty is not given."""
    found: dict[str, Given] = {}
    for variable in sorted(environment, reverse=True):  # capitals sort first, so that they win
        name = variable.upper().removeprefix(PREFIX).lower()
        value = environment[variable]
        if variable.upper().startswith(PREFIX) and name in names and value and not _SERVICE_ADDRESS.fullmatch(value):
            found[name] = Given(value, f"{variable} in the environment")
    return {name: Given(one.parsed(name), one.origin) for name, one in found.items()}


def foreign_values(environment: Mapping[str, str]) -> dict[str, Given]:
    """Each setting that the environment gives under Roboflow's names."""
    found = {
        setting: Given(environment[variable], f"{variable} in the environment")
        for variable, setting in FOREIGN_NAMES.items()
        if environment.get(variable) and not _SERVICE_ADDRESS.fullmatch(environment[variable])
    }
    if _is_true(environment.get("OFFLINE_MODE", "")):
        found["allow_urls"] = Given(False, "OFFLINE_MODE in the environment")
    return found


def standard_values(environment: Mapping[str, str]) -> dict[str, Given]:
    """The collector of traces by OpenTelemetry's own names, which clusters give to all containers: read where the extra is installed."""
    for variable, path in OTLP_NAMES.items():
        if environment.get(variable) and has_otel():
            return {"otlp_endpoint": Given(environment[variable].rstrip("/") + path, f"{variable} in the environment")}
    return {}


def has_otel() -> bool:
    """Whether the extra ``otel`` is installed."""
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def unread_names(environment: Mapping[str, str]) -> list[str]:
    """Roboflow's own names that the environment has."""
    return sorted(name for name in FOREIGN_NAMES if name not in _COMMON_NAMES and environment.get(name))


def unknown_names(environment: Mapping[str, str], names: Mapping[str, Any]) -> list[str]:
    """Variables that look like settings and are none; those of a Kubernetes Service are left out."""
    return sorted(
        variable
        for variable, value in environment.items()
        if variable.startswith(PREFIX)
        and variable.removeprefix(PREFIX).lower() not in names
        and not _SERVICE_ADDRESS.fullmatch(value)
        and not _SERVICE_NAME.fullmatch(variable)
    )


def read_file(path: Path, kind: type[BaseSettings]) -> dict[str, Any]:
    """The settings of a TOML file. Folders of models that begin with ``./`` or ``../`` are beside the file.

    Raises:
        InvalidOption: there is no such file, or it is no TOML.
    """
    if not path.is_file():
        raise InvalidOption(f"there is no settings file {str(path)!r}", field="config")
    try:
        values = TomlConfigSettingsSource(kind, toml_file=path)()
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise InvalidOption(f"the settings file {str(path)!r} can't be read: {error}", field="config") from None
    return {name: _beside(path.absolute().parent, value) if name in FOLDERS else value for name, value in values.items()}


def _beside(folder: Path, value: Any) -> Any:
    """A value whose paths ``./`` and ``../`` are meant from ``folder``; behind a ``=`` or ``+`` as well."""
    if isinstance(value, str):
        parts = re.split("([=+])", value)
        return "".join(os.path.normpath(folder / part) if part.startswith(("./", "../")) else part for part in parts)
    if isinstance(value, Mapping):
        return {name: _beside(folder, one) for name, one in value.items()}
    return [_beside(folder, one) for one in value] if isinstance(value, list) else value


def _with_lines(path: str | Path | None, values: Mapping[str, Any]) -> dict[str, Given]:
    """The values of a file, with the lines on which they stand."""
    lines = Path(path).read_text(encoding="utf-8").splitlines() if path is not None else []
    return {name: Given(value, f"{path}, line {_line_of(name, lines)}") for name, value in values.items()}


def _line_of(name: str, lines: Sequence[str]) -> int:
    """Where a TOML file gives a setting: as a key, or as the table of that name."""
    pattern = re.compile(rf"\s*\[?\s*[\"']?{re.escape(name)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def _is_true(value: object) -> bool:
    return str(value).strip().lower() in ("1", "true", "t", "yes", "y", "on")
