"""All settings of the server, in one class.

A value comes from the first of: a flag, ``FLORENCE2_<NAME>`` in the environment, the name that Roboflow's server has for it (where
``roboflow_names`` says so), the TOML file of ``config``, the profile, the default below. The only place that reads the environment.
Knows nothing of what the values do.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from florence2.cores import usable_cores
from florence2.errors import InvalidOption
from florence2.server import setting_checks as checks
from florence2.server import setting_sources as sources
from florence2.server.profiles import PROFILES, Profile
from florence2.server.setting_words import in_plain_words
from florence2.weights.aliases import DEMO

Names = Annotated[list[str], NoDecode]
# Settings that the command line has a flag of their own for; the others go by --set.
FLAGS = frozenset(
    {
        *("model", "adapter", "profile", "host", "port", "config", "database", "api_keys_file", "root_path"),
        *("device", "precision", "log_level", "log_json", "allow_anonymous"),
    }
)
_LEVELS = {"warn": "warning", "fatal": "critical", "10": "debug", "20": "info", "30": "warning", "40": "error", "50": "critical"}


KEY_LISTS = ("api_keys", "management_keys")
NOWHERE_ELSE: Mapping[str, str] = {}


class Settings(BaseSettings):
    """Everything that can be set. Lists are written with commas in the environment, mappings as JSON."""

    model_config = SettingsConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True, protected_namespaces=())

    profile: Profile = Field(default="local", description="Which set of defaults to start from.")
    config: Path | None = Field(default=None, description="A TOML file with settings by these names.")
    roboflow_names: bool = Field(
        default=False,
        description="Read the names of Roboflow's server in the environment as well, `HOST` and `PORT` among them.",
    )

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=9001, ge=0, le=65535, description="The port to listen on; 0 lets the system choose.")
    ssl_certfile: Path | None = Field(default=None, description="Certificate for HTTPS.")
    ssl_keyfile: Path | None = Field(default=None, description="The certificate's private key.")
    root_path: str = Field(default="", description="The path below which a proxy offers the server, such as `/florence2`.")
    public_url: Annotated[str, AfterValidator(checks.address)] | None = Field(
        default=None, description="The address that clients see; for links in answers. Default: the request's own."
    )
    allow_origins: Annotated[list[Annotated[str, AfterValidator(checks.origin)]], NoDecode] = Field(
        default=[], description="Origins whose pages may call the server from a browser, such as `https://app.example`; `*`: all."
    )
    allow_hosts: Names = Field(
        default=[], description="Names by which a server without keys on 127.0.0.1 may be called, beside localhost and addresses."
    )
    trusted_proxies: Annotated[list[Annotated[str, AfterValidator(checks.proxy)]], NoDecode] = Field(
        default=[], description="Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    request_id_header: Annotated[str, AfterValidator(checks.header_name)] = Field(
        default="x-request-id", description="The header that carries the request's id, in and out."
    )

    api_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default=[], description="Keys, one of which every request must bring. None: open."
    )
    api_keys_file: Path | None = Field(default=None, description="A file with such keys, one a line; # begins a comment.")
    management_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default=[], description="Keys that may also manage models and read metrics and everybody's usage."
    )
    management_keys_file: Path | None = Field(default=None, description="A file with such keys, one a line.")
    open_metrics: bool = Field(default=False, description="Offer /metrics without a key where there are keys.")
    database: SecretStr | None = Field(
        default=None,
        description="Keys with limits, and usage: `sqlite:////path/of/a/file.sqlite` or `postgresql://user:password@host/name`. None: "
        "none, but `florence2 serve` takes the file that `florence2 keys` makes, if it is there, unless this is the word `none`.",
    )
    keys_outage_s: float = Field(
        default=3600.0, ge=0, description="How long keys of the database that are known work on while it does not answer."
    )
    limits_url: SecretStr | None = Field(
        default=None, description="Where the rates of keys are counted: `redis://host:6379/0` for several servers. None: in each server."
    )
    usage: bool = Field(default=True, description="Count what each key uses, where there is a database.")
    journal_folder: Path | None = Field(
        default=None, description="Where usage is noted before the database has it. None: beside SQLite's file, else with the user's data."
    )
    require_keys: bool = Field(default=False, description="Refuse to start without keys.")
    allow_anonymous: bool = Field(
        default=False, description="Start without keys although other machines can reach `host`; everybody who does may use the server."
    )
    allow_key_in_header: bool = Field(default=True, description="Accept a key as Authorization: Bearer.")

    model: Names = Field(
        default=[DEMO],
        description="Loaded before the server is ready: alias, alias@revision, hub id or folder, NAME= and one of these or BASE+ADAPTER.",
    )
    adapter: Names = Field(
        default=[],
        description="LoRA adapters merged into the model of `model`: folder or hub id; NAME= in front says into which of several.",
    )
    models: dict[str, str] = Field(default={}, description="Names of your own, and what each means: alias, hub id, folder or BASE+ADAPTER.")
    loadable: Literal["named", "aliases", "any"] = Field(
        default="aliases",
        description="What a request may load: what `model` and `models` name, the known aliases as well, or any hub id as well.",
    )
    allow_model_management: bool = Field(default=True, description="Offer /model/add, /model/remove and /model/clear.")
    allow_model_registry: bool = Field(default=True, description="Offer /model/registry.")
    max_loaded_models: int = Field(default=4, ge=1, description="More models than this push out the one that was used longest ago.")
    max_model_bytes: ByteSize | None = Field(
        default=None,
        description="How much memory all models may take, such as `4GB`; more push out the one that was used longest ago. None: 60 % of "
        "what the process may use, or no such bound where `device` names a GPU.",
    )
    model_idle_s: float = Field(
        default=0.0, ge=0, description="After how long without a request a model leaves that `model` does not name; 0: never."
    )
    model_wait_s: float = Field(
        default=60.0, ge=0, description="How long a request waits for its model to load before it is told to try again."
    )
    device: Annotated[str, AfterValidator(checks.device)] = Field(default="auto", description="auto, cpu, cuda, cuda:0, mps.")
    precision: Annotated[str, AfterValidator(checks.precision)] = Field(
        default="auto", description="auto, fp32, bf16, fp16, int8 (CPUs only)."
    )
    image_cache_bytes: int = Field(default=2**27, ge=0, description="How much of the images asked about lately each model keeps encoded.")
    warm_up: bool = Field(default=True, description="Answer one image before the server is ready.")
    engine_process: bool = Field(
        default=os.name == "posix", description="Run the models in a process of its own, which is started again when it ends or hangs."
    )
    engine_step_timeout_s: float = Field(default=60.0, gt=0, description="A pass of a model that lasts longer is taken for one that hangs.")
    engine_heartbeat_s: float = Field(default=10.0, ge=1, description="That process is taken for one that hangs when it is so long silent.")

    allow_urls: bool = Field(default=True, description="Fetch images by URL.")
    allow_http_urls: bool = Field(default=False, description="Fetch by http:// as well as https://.")
    allow_urls_without_domain: bool = Field(default=False, description="Fetch from hosts that are addresses or single words.")
    allow_private_urls: bool = Field(default=False, description="Fetch from addresses that are not on the public internet.")
    url_allow_list: Names = Field(default=[], description="Hosts that may be fetched from; all others may not. Empty: no such limit.")
    url_deny_list: Names = Field(default=[], description="Hosts that may not be fetched from.")
    max_url_redirects: int = Field(default=3, ge=0, le=100, description="Redirects followed.")
    url_timeout_s: float = Field(default=10.0, gt=0, description="Longest time for one fetch, redirects included.")
    image_folder: Annotated[Path, AfterValidator(checks.folder)] | None = Field(
        default=None, description='A folder from which images of type "file" are read. None: not offered.'
    )

    max_body_bytes: int = Field(default=20 * 2**20, ge=1, description="Largest request body, and largest image fetched or read.")
    max_image_pixels: int = Field(default=50_000_000, ge=1, le=178_956_970, description="Most pixels of an image, told by its header.")
    max_images: int = Field(default=64, ge=1, description="Most images in a request.")
    max_prompts: int = Field(default=16, ge=1, description="Most prompts in a request.")
    max_tiles: int = Field(default=16, ge=1, le=64, description="Most tiles of an image; each counts as an image of `max_requests`.")
    max_prompt_chars: int = Field(
        default=8192, ge=1, description="Longest prompt in characters; the model's own limit in tokens comes on top."
    )
    max_requests: int = Field(
        default=384, ge=1, description="Most images times prompts times beams under way at once; more are told to try again."
    )
    max_requests_per_key: int | None = Field(default=None, ge=1, description="The same for the requests of one key.")
    max_bodies_bytes: int = Field(
        default=5 * 2**27, ge=1, description="Most bytes of request bodies, and of image files in them, held at once."
    )
    max_waiting_bytes: int = Field(
        default=2**30, ge=1, description="While decoded pictures of more bytes wait for the models, no request is taken."
    )
    max_keyless_bodies: int = Field(default=32, ge=1, description="With keys: most bodies read at once whose beginning shows no key.")
    header_timeout_s: float = Field(default=20.0, gt=0, description="Longest time for the head of a request to come in.")
    body_timeout_s: float = Field(
        default=20.0, gt=0, description="Longest time for a body to come in; every 16 KiB of it give a second more."
    )
    keyless_body_timeout_s: float = Field(default=10.0, gt=0, description="The same, with nothing more, as long as no key is known.")
    answer_timeout_s: float = Field(default=20.0, gt=0, description="How long a client may read nothing of its answer.")
    max_connections: int = Field(
        default=4096, ge=1, description="Most connections; beyond them, and beyond what the system allows, the longest idle are closed."
    )
    request_timeout_s: float = Field(
        default=600.0, gt=0, description="Longest time for a request, waiting included; its header `x-request-timeout` may shorten it."
    )
    stream_keep_alive_s: float = Field(
        default=5.0, gt=0, description="A streamed answer of which nothing else was sent for so long gets a comment, which clients ignore."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads that compute, on a CPU. Default: the processors that may be used, fewer while others use them.",
    )
    image_threads: int = Field(default=min(4, usable_cores()), ge=1, description="Threads that decode and preprocess images.")
    image_processes: int = Field(
        default=min(2, usable_cores()), ge=1, description="Processes that decode large images and costly kinds; started when needed."
    )
    image_decode_s: float = Field(default=10.0, gt=0, description="Most processor time for decoding one image there; then it is refused.")

    playground: bool = Field(default=True, description="Offer the page at / on which people try the models.")
    metrics: bool = Field(default=True, description="Offer /metrics.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(default="info", description="The least that is logged.")
    log_json: bool = Field(default=False, description="One JSON object a line in the log.")
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces are sent by OTLP over HTTP, such as `http://localhost:4318`; an address with a path is used as it is.",
    )
    trace_ratio: float = Field(
        default=1.0, ge=0, le=1, description="The share of requests that are traced, of those whose caller does not say."
    )
    drain_delay_s: float = Field(default=0.0, ge=0, description="After SIGTERM: how long to stay reachable, but not ready, before closing.")
    drain_timeout_s: float = Field(
        default=30.0,
        ge=0,
        description="After that: longest time until the process has ended, requests under way included; never less than 4.",
    )

    @property
    def is_demo_by_default(self) -> bool:
        """Whether the demo is loaded because no setting names a model."""
        return "model" not in self.model_fields_set and self.model == [DEMO] and DEMO not in self.models

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, one of which a request must bring."""
        return bool(self.api_keys or self.api_keys_file or self.management_keys or self.management_keys_file or self.database)

    @property
    def help_root(self) -> str:
        """The address of the page of errors. Not made of the request's ``Host``, which clients choose."""
        return (self.public_url or self.root_path).rstrip("/") + "/docs/errors"

    @field_validator(
        "allow_origins", "allow_hosts", "trusted_proxies", "model", "adapter", "url_allow_list", "url_deny_list", *KEY_LISTS, mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """A list written as one text: JSON, or with commas."""
        if not isinstance(value, str):
            return value
        return json.loads(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",") if part.strip()]

    @field_validator(*KEY_LISTS, mode="before")
    @classmethod
    def _not_blank(cls, value: object) -> object:
        """A text of keys has one at least: a server whose keys got lost on the way must not be open to everybody."""
        if isinstance(value, str) and not value.strip(" ,\t\r\n"):
            raise ValueError("holds no key; leave it out for a server without keys")
        return value

    @field_validator("database", mode="before")
    @classmethod
    def _no_database(cls, value: object) -> object:
        """The word none: no database, even where ``florence2 keys`` has made one."""
        return None if isinstance(value, str) and value.strip().lower() == "none" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _known_level(cls, value: object) -> object:
        """The five names in any case, their short forms and numbers."""
        name = str(value).strip().lower()
        return _LEVELS.get(name, name) if isinstance(value, str | int) else value

    @field_validator("otlp_endpoint")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        """An address that may be logged."""
        address = urlsplit(value or "http://none")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("expected an address such as http://localhost:4318")
        if address.username or address.password or address.query:
            raise ValueError("holds no credentials: they go in OTEL_EXPORTER_OTLP_HEADERS")
        return value

    @field_validator("root_path")
    @classmethod
    def _one_slash(cls, value: str) -> str:
        """A path that begins with a slash and does not end in one; "" for the root."""
        if "?" in value or "#" in value or any(sign.isspace() for sign in value):
            raise ValueError("expected a path such as /florence2")
        return "/" + value.strip("/") if value.strip("/") else ""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.require_keys and not (self.has_keys or self.allow_anonymous):
            raise ValueError(
                f"the profile {self.profile} needs keys: set FLORENCE2_API_KEYS or FLORENCE2_API_KEYS_FILE, "
                "or FLORENCE2_ALLOW_ANONYMOUS=true for a server that everybody may use"
            )
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("ssl_certfile and ssl_keyfile go together: set both or none")
        if self.engine_process and os.name != "posix":
            raise ValueError("engine_process: this system can't run the models in a process of its own; leave it out")
        if not self.model and not self.models and self.loadable == "named":
            raise ValueError("no model can be used: name one in model or models, or set loadable to aliases")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, foreign names, file, profile: the first that has a value wins."""
        return init_settings, _Sources(settings_cls, init_settings())


class _Sources(PydanticBaseSettingsSource):
    """All that is not said by flags."""

    def __init__(self, settings_cls: type[BaseSettings], flags: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._flags = flags

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: all values come at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The values of environment, file and profile, the stronger ones laid over the weaker."""
        given = {name: one.value for name, one in sources.found(os.environ, self._flags, Settings).items()}
        profile = {**given, **self._flags}.get("profile", "local")
        return {**PROFILES.get(str(profile), {}), **given}


def read_settings(flags: Mapping[str, Any], origins: Mapping[str, str] = NOWHERE_ELSE) -> Settings:
    """The settings of a process; ``flags`` win over everything, and those that are None were not given.

    Args:
        flags: by the names of the settings.
        origins: where some of them were written if not on the command line, for errors.

    Raises:
        InvalidOption: a value that can't be, a file that is not there or no TOML, keys missing where the profile needs them.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        said = (_complaint(part["loc"], part["msg"], given, origins) for part in error.errors(include_input=False))
        raise InvalidOption("; ".join(said)) from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``name=value`` texts of the command line as settings.

    Raises:
        InvalidOption: no such form, or no such setting.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip().lower().replace("-", "_").removeprefix(sources.PREFIX.lower())
        if not equals or name not in Settings.model_fields:
            missing = " without a value" if name in Settings.model_fields else closest(name)
            raise InvalidOption(f"--set takes NAME=VALUE with the name of a setting, got {assignment.partition('=')[0]!r}{missing}")
        values[name] = sources.Given(value, f"--set {name}").parsed(name)
    return values


def _complaint(path: tuple[int | str, ...], message: str, flags: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """What is wrong with a setting, and where it was set."""
    name = str(path[0]) if path else ""
    message = in_plain_words(message)
    if not name:
        return message
    one = sources.Given(None, origins[name]) if name in origins else where(name, flags)
    origin = f" ({one.origin})" if one else ""
    if name not in Settings.model_fields:
        return f"unknown setting {name!r}{origin}{closest(name)}"
    if one is not None and one.origin == f"--{name.replace('_', '-')}":
        return f"{one.origin}{'' if message.startswith('must ') else ':'} {message}"
    return f"{name}{origin}{'' if message.startswith('must ') else ':'} {message}"  # never the value, which may be a misplaced key


def where(name: str, flags: Mapping[str, Any]) -> sources.Given | None:
    """The value of a setting as its writer wrote it, and where."""
    if name in flags:
        return sources.Given(flags[name], f"--{name.replace('_', '-')}" if name in FLAGS else f"--set {name}")
    return sources.found(os.environ, flags, Settings).get(name)


def set_elsewhere(name: str, flags: Mapping[str, Any]) -> bool:
    """Whether the environment, or a file that it or a flag names, gives a setting."""
    return name in sources.found(os.environ, flags, Settings)


def closest(name: str) -> str:
    """A question after the setting whose name is nearest to this one; "" for none."""
    close = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
