"""Which proxy the environment names for an address, and that none ever stands before this machine."""

from __future__ import annotations

import os

import pytest

from florence2.errors import InvalidOption
from florence2.proxies import environment_for, proxy_for

NAMES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "https://a.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example", "http://p:1 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.example", None),
        ({"http_proxy": "p:1", "HTTP_PROXY": "q:1"}, "http://a.example", "http://p:1 (http_proxy)"),
        ({"ALL_PROXY": "socks5://p:1"}, "https://a.example", "socks5://p:1 (ALL_PROXY)"),
        ({"all_proxy": "SOCKS5h://p:1/"}, "https://a.example", "socks5h://p:1 (all_proxy)"),
        ({"ALL_PROXY": "socks://p:1"}, "https://a.example", "socks5://p:1 (ALL_PROXY)"),
        ({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "http://q:2"}, "https://a.example", "http://q:2 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "http://user:word@p:1"}, "https://a.example", "http://p:1 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": " "}, "https://a.example", None),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a.example", None),
    ],
)
def test_variables(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, expected: str | None) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(url)
    assert (str(proxy) if proxy else None) == expected


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_this_machine_is_reached_without(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in NAMES[:3]:
        monkeypatch.setenv(name, "nonsense://here")
    assert proxy_for(f"http://{host}:9001/infer/lmm") is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", True),
        (".a.example", "b.a.example", True),
        ("*.a.example", "b.a.example", True),
        ("a.example", "ba.example", False),
        ("x, A.Example", "a.example", True),
        ("x A.Example", "a.example.", True),
        ("a.example:443", "a.example", True),
        ("a.example:8080", "a.example", False),
        ("*", "anything", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "a.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("", "a.example", False),
        (",,", "a.example", False),
    ],
)
def test_exceptions(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, is_direct: bool) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(f"https://{host}/x") is None) is is_direct


@pytest.mark.parametrize("value", ["socks4://p:1", "ftp://p", "http://", "http://p:port", "https://p:99999", "://"])
def test_what_is_no_proxy_is_told_with_its_source(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(InvalidOption, match=r"^ALL_PROXY is .*socks5h.*NO_PROXY") as caught:
        proxy_for("https://a.example")
    assert caught.value.field == "ALL_PROXY"
    monkeypatch.setenv("ALL_PROXY", "socks4://user:secret@p:1")
    with pytest.raises(InvalidOption) as caught:
        proxy_for("https://a.example")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["http://[::1", "http://a.example:port", "", "x"])
def test_what_is_no_url_has_no_proxy(url: str) -> None:
    assert proxy_for(url) is None


def test_environment_for_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    with environment_for("https://a.example") as is_changed:
        assert not is_changed
    monkeypatch.setenv("ALL_PROXY", "socks://p:1")
    monkeypatch.setenv("NO_PROXY", "b.example")
    with environment_for("http://127.0.0.1:8080") as is_changed:
        assert is_changed
        assert os.environ["ALL_PROXY"] == "socks5://p:1"
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "b.example,localhost,127.0.0.1,::1"
    assert (os.environ["ALL_PROXY"], os.environ["NO_PROXY"]) == ("socks://p:1", "b.example")
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("HTTP_PROXY", "gopher://p")
    with pytest.raises(InvalidOption, match="HTTP_PROXY"), environment_for("https://a.example"):
        pass
