"""Settings: which source wins, and what is refused."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from florence2.cli.serve import serve
from florence2.engine.precision import PRECISIONS, QUANTIZED
from florence2.errors import InvalidOption
from florence2.server import setting_checks
from florence2.server.profiles import PROFILES
from florence2.server.setting_sources import FOREIGN_NAMES
from florence2.server.settings import FLAGS, Settings, parse_assignments, read_settings
from florence2.server.settings_report import differing, notices


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN_NAMES:
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    settings = read_settings({})
    assert (settings.host, settings.port, settings.model, settings.profile) == ("127.0.0.1", 9001, ["florence-2-demo"], "local")
    assert settings.max_body_bytes == 20 * 2**20


def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "florence2.toml"
    file.write_text('profile = "dedicated"\nport = 1\nmax_images = 11\napi_keys = ["a"]\ndevice = "cpu"\n', encoding="utf-8")
    settings = read_settings({"config": file})
    assert (settings.profile, settings.port, settings.max_images, settings.host) == ("dedicated", 1, 11, "0.0.0.0")
    assert settings.request_timeout_s == PROFILES["dedicated"]["request_timeout_s"]
    monkeypatch.setenv("PORT", "2")
    assert read_settings({"config": file}).port == 1
    monkeypatch.setenv("FLORENCE2_ROBOFLOW_NAMES", "true")
    assert read_settings({"config": file}).port == 2
    monkeypatch.setenv("FLORENCE2_PORT", "3")
    assert read_settings({"config": file}).port == 3
    assert read_settings({"config": file, "port": 4}).port == 4
    monkeypatch.setenv("FLORENCE2_CONFIG", str(file))
    assert read_settings({}).device == "cpu"
    assert read_settings({"profile": "local"}).host == "127.0.0.1"


def test_lists_and_mappings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_MODEL", "florence-2-base, florence-2-large")
    monkeypatch.setenv("FLORENCE2_API_KEYS", '["a,b", "c"]')
    monkeypatch.setenv("FLORENCE2_MODELS", '{"mine": "/data/mine"}')
    settings = read_settings({})
    assert settings.model == ["florence-2-base", "florence-2-large"]
    assert [key.get_secret_value() for key in settings.api_keys] == ["a,b", "c"]
    assert settings.models == {"mine": "/data/mine"}


def test_names_of_the_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOST": "0.0.0.0",
        "ALLOW_ORIGINS": "https://a.example",
        "PRELOAD_MODELS": "florence-2-base",
        "ALLOW_NON_HTTPS_URL_INPUT": "True",
        "ALLOW_URL_INPUT_WITHOUT_FQDN": "True",
        "WHITELISTED_DESTINATIONS_FOR_URL_INPUT": "a.example,b.example",
        "MAX_IMAGE_URL_REDIRECTS": "5",
        "LOG_LEVEL": "WARNING",
        "MODEL_LOCK_ACQUIRE_TIMEOUT": "7",
        "OFFLINE_MODE": "True",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert read_settings({}) == Settings()
    (notice,) = notices({**values, "FLORENCE2_DEVICE": "cpu"}, Settings())
    assert "ALLOW_NON_HTTPS_URL_INPUT" in notice
    assert "HOST" not in notice.split(";")[0]  # set by shells and platforms for reasons of their own
    settings = read_settings({"roboflow_names": True})
    assert notices(values, settings) == []
    assert settings.host == "0.0.0.0"
    assert settings.allow_origins == ["https://a.example"]
    assert settings.model == ["florence-2-base"]
    assert settings.allow_http_urls
    assert settings.allow_urls_without_domain
    assert settings.url_allow_list == ["a.example", "b.example"]
    assert settings.max_url_redirects == 5
    assert settings.log_level == "warning"
    assert settings.model_wait_s == 7
    assert not settings.allow_urls


def test_foreign_names_mean_settings() -> None:
    assert set(FOREIGN_NAMES.values()) <= set(Settings.model_fields)
    assert {name for values in PROFILES.values() for name in values} <= set(Settings.model_fields)


@pytest.mark.parametrize("profile", ["dedicated", "hosted"])
def test_profiles_that_need_keys(profile: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="FLORENCE2_API_KEYS"):
        read_settings({"profile": profile})
    settings = read_settings({"profile": profile, "api_keys": "a"})
    assert settings.log_json
    assert read_settings({"profile": profile, "require_keys": False}).api_keys == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": 99999}, "--port must be at most 65535"),
        ({"profile": "cloud"}, "--profile must be 'local', 'dedicated' or 'hosted'"),
        ({"prot": 1}, "did you mean port"),
        ({"ssl_certfile": "a.pem"}, "ssl_keyfile"),
        ({"loadable": "named", "model": []}, "no model"),
        ({"config": "/nope.toml"}, "no settings file"),
        ({"port": "x"}, "--port must be a whole number"),
        ({"max_images": 0}, "max_images (--set max_images) must be at least 1"),
        ({"root_path": "/a b"}, "--root-path: expected a path such as /florence2"),
        ({"precision": "int4"}, "--precision: expected one of auto, fp32"),
        ({"device": "gpu"}, "--device: expected auto, cpu, cuda"),
        ({"request_id_header": "x y"}, "request_id_header (--set request_id_header): expected the name of a header"),
        ({"trusted_proxies": "10.0.0.0/8,abc"}, "expected addresses such as 10.0.0.5"),
        ({"public_url": "vision.example"}, "expected an address such as https://vision.example"),
        ({"image_folder": "/nope"}, "expected a folder, and there is none at /nope"),
        ({"allow_origins": "https://a.example/page"}, "expected origins such as https://app.example"),
        ({"allow_origins": "https://*.example"}, "expected origins such as https://app.example"),
        ({"allow_origins": "a.example"}, "expected origins such as https://app.example"),
    ],
)
def test_mistakes(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(words)):
        read_settings(flags)


def test_precisions_are_those_of_the_engine() -> None:
    assert set(setting_checks.PRECISIONS) == {"auto", *PRECISIONS, QUANTIZED}


def test_origins_are_as_browsers_send_them() -> None:
    given = "https://App.Example/, http://a.example:80, https://b.example:8443, chrome-extension://abc, null"
    found = ["https://app.example", "http://a.example", "https://b.example:8443", "chrome-extension://abc", "null"]
    assert read_settings({"allow_origins": given}).allow_origins == found


def test_a_setting_without_a_value_says_so() -> None:
    with pytest.raises(InvalidOption, match="'port' without a value"):
        parse_assignments(["port"])


def test_mistakes_do_not_repeat_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_API_KEYS", '["secret", ')
    with pytest.raises(InvalidOption) as caught:
        read_settings({"port": "secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("host = 'x'\nport = ", "can't be read: Invalid value (at"),
        ("host = 'x'\n\nprot = 1", "unknown setting 'prot' ({file}, line 3) (did you mean port?)"),
        ("# port = 1\nport = 'x'", "port ({file}, line 2) must be a whole number"),
        ("[models]\na = 1", "models ({file}, line 1) must be a text"),
        ("log_level = 'loud'", "log_level ({file}, line 1) must be 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("\udcff", "can't be read"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidOption) as caught:
        read_settings({"config": file})
    assert words.replace("{file}", str(file)) in str(caught.value)
    assert str(file) in str(caught.value)


def test_mistakes_in_the_environment_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value, words in (
        ("FLORENCE2_PORT", "http", "port (FLORENCE2_PORT in the environment) must be a whole number"),
        ("florence2_max_images", "-1", "max_images (florence2_max_images in the environment) must be at least 1"),
        ("FLORENCE2_MODELS", "{", "models (FLORENCE2_MODELS in the environment): expected a JSON object"),
        ("FLORENCE2_MODEL", "[", "model (FLORENCE2_MODEL in the environment): "),
        ("FLORENCE2_CONFIG", "/nope.toml", "no settings file '/nope.toml'"),
        ("FLORENCE2_ROOT_PATH", "/a?b", "root_path (FLORENCE2_ROOT_PATH in the environment): "),
    ):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InvalidOption) as caught:
            read_settings({})
        assert words in str(caught.value)
        monkeypatch.delenv(variable)
    monkeypatch.setenv("FLORENCE2_ROBOFLOW_NAMES", "1")
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(InvalidOption, match=r"port \(PORT in the environment\)"):
        read_settings({})


def test_what_orchestrators_set_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kubernetes Service named "florence2", a shell of conda, a platform that sets PORT."""
    environment = {
        "FLORENCE2_PORT": "tcp://10.0.0.7:9001",
        "FLORENCE2_PORT_9001_TCP": "tcp://10.0.0.7:9001",
        "FLORENCE2_PORT_9001_TCP_PROTO": "tcp",
        "FLORENCE2_PORT_9001_TCP_PORT": "9001",
        "FLORENCE2_PORT_9001_TCP_ADDR": "10.0.0.7",
        "FLORENCE2_SERVICE_HOST": "10.0.0.7",
        "FLORENCE2_SERVICE_PORT": "9001",
        "FLORENCE2_SERVICE_PORT_HTTP": "9001",
        "FLORENCE2_API_SERVICE_HOST": "10.0.0.8",
        "FLORENCE2_API_PORT": "udp://10.0.0.8:53",
        "FLORENCE2_DEVICE": "",
        "HOST": "x86_64-conda-linux-gnu",
        "PORT": "tcp://10.0.0.9:80",
        "LOG_LEVEL": "LOUD",
        "DEVICE": "tpu",
    }
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert read_settings({}) == Settings()
    assert notices(environment, Settings()) == []
    del environment["HOST"]
    monkeypatch.delenv("HOST")
    monkeypatch.setenv("LOG_LEVEL", "WARN")
    monkeypatch.setenv("DEVICE", "cpu")
    settings = read_settings({"roboflow_names": True})
    assert (settings.port, settings.log_level, settings.device) == (9001, "warning", "cpu")


@pytest.mark.parametrize(
    ("given", "level"),
    [("WARN", "warning"), ("Warning", "warning"), ("fatal", "critical"), (" info ", "info"), ("10", "debug"), (30, "warning")],
)
def test_levels_of_the_log(given: str, level: str) -> None:
    assert read_settings({"log_level": given}).log_level == level


def test_flags_are_those_of_the_command() -> None:
    assert set(inspect.signature(serve).parameters) - {"set_", "check", "as_json"} == FLAGS


@pytest.mark.parametrize(("given", "path"), [("", ""), ("/", ""), ("florence2/", "/florence2"), ("/a/b/", "/a/b")])
def test_root_path(given: str, path: str) -> None:
    assert read_settings({"root_path": given}).root_path == path


def test_assignments() -> None:
    assert parse_assignments(["max-images=3", "FLORENCE2_DEVICE=cpu", 'models={"a": "b"}']) == {
        "max_images": "3",
        "device": "cpu",
        "models": {"a": "b"},
    }
    for wrong in ("max_images", "max_image=3", 'models={"a"'):
        with pytest.raises(InvalidOption):
            parse_assignments([wrong])


def test_unknown_names() -> None:
    environment = {"FLORENCE2_PROT": "1", "FLORENCE2_PORT": "2", "OTHER": "3"}
    assert notices(environment, Settings()) == ["no such setting: FLORENCE2_PROT (did you mean port?)"]


def test_keys_are_not_shown() -> None:
    settings = Settings(api_keys="secret")  # type: ignore[arg-type]
    assert "secret" not in repr(settings) + json.dumps(settings.model_dump(mode="json"))


@pytest.mark.parametrize("keys", [",", "", " , ,", "\n"])
def test_keys_that_got_lost_do_not_open_the_server(keys: str) -> None:
    with pytest.raises(InvalidOption, match="holds no key"):
        read_settings({"api_keys": keys})


def test_what_differs_says_where_it_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "florence2.toml"
    file.write_text('# mine\nmax_images = 11\napi_keys = ["a-long-key"]\n', encoding="utf-8")
    monkeypatch.setenv("FLORENCE2_MODEL", "florence-2-base")
    flags = {"config": file, "port": 9001, "profile": "dedicated", "adapter": ["owner/cats"]}
    found = differing(read_settings(flags), flags)
    assert "port" not in found  # as it is by default
    assert found["max_images"] == (11, f"{file}, line 2")
    assert found["api_keys"] == ("1 of them", f"{file}, line 3")
    assert found["model"] == (["florence-2-base"], "FLORENCE2_MODEL in the environment")
    assert found["adapter"] == (["owner/cats"], "--adapter")
    assert found["request_timeout_s"] == (120.0, "profile dedicated")


def test_the_demo_is_unasked_where_no_source_names_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "florence2.toml"
    file.write_text('model = ["florence-2-demo"]\n', encoding="utf-8")
    assert read_settings({}).is_demo_by_default
    assert read_settings({"port": 1, "profile": "local"}).is_demo_by_default
    for flags in ({"config": file}, {"model": ["florence-2-demo"]}, {"models": {"florence-2-demo": "/mine"}}, {"model": []}):
        assert not read_settings(flags).is_demo_by_default
    monkeypatch.setenv("FLORENCE2_MODEL", "florence-2-demo")
    assert not read_settings({}).is_demo_by_default
