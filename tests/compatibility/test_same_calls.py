"""The known client and ours do the same calls against one server that only logs: what travels and what is refused is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.client.stub import Received, Reply, Stub, caption, running_stub, usual
from tests.compatibility import calls

pytestmark = pytest.mark.timeout(900)  # the first run installs the client

SWITCHES: list[dict[str, str]] = [
    {},
    {"ALLOW_URL_INPUT": "False"},
    {"ALLOW_NON_HTTPS_URL_INPUT": "False"},
    {"ALLOW_URL_INPUT_WITHOUT_FQDN": "False"},
    {"WHITELISTED_DESTINATIONS_FOR_URL_INPUT": "a.example,b.example"},
    {"WHITELISTED_DESTINATIONS_FOR_URL_INPUT": ""},
    {"BLACKLISTED_DESTINATIONS_FOR_URL_INPUT": "localhost"},
    {"BLACKLISTED_DESTINATIONS_FOR_URL_INPUT": "localhost", "VALIDATE_IMAGE_URL_REDIRECTS": "True"},
    {"ALLOW_URL_TO_NON_GLOBAL_ADDRESSES": "False"},
    {"MAX_IMAGE_URL_REDIRECTS": "2"},  # an awaited call of theirs follows one fewer, and with 0 any number
]


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with running_stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (32, 24), (200, 30, 20)).save(folder / "dog.jpg")
    return folder


@pytest.fixture(scope="module")
def host(pictures: Path) -> Iterator[Stub]:
    content = (pictures / "dog.jpg").read_bytes()
    with running_stub() as host:

        def respond(received: Received) -> Reply:
            if received.path == "/redirect":
                return Reply(302, b"", {"location": host.url.replace("127.0.0.1", "localhost") + "/dog.jpg"})
            return Reply(404, b"no") if received.path == "/gone" else Reply(200, content)

        host.respond = respond
        yield host


def done(python: Path | str, package: str, stub: Stub, host: Stub, pictures: Path, switches: dict[str, str]) -> Any:
    """What comes of each call, and what the server saw."""
    answers = {True: lambda images: [caption("a")] * len(images), False: lambda image: caption("a")}

    def respond(received: Received) -> Reply:
        if not received.path.startswith("/infer/"):
            return usual(received)
        image = received.json["image"]
        return Reply(200, answers[isinstance(image, list)](image))

    stub.respond = respond
    stub.received.clear()
    host.received.clear()
    environment = {**os.environ, **switches, "no_proxy": "127.0.0.1,localhost", "INFERENCE_WARNINGS_DISABLED": "true"}
    command = [str(python), calls.__file__, package, stub.url, host.url, str(pictures)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stderr
    sent = [(one.method, one.path, one.json if one.body else None, one.headers.get("authorization")) for one in stub.received]
    return json.loads(ran.stdout), sent, [one.path for one in host.received]


@pytest.mark.slow
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: " ".join(switches) or "none")
def test_the_same_calls_have_the_same_outcome(known_python: Path, stub: Stub, host: Stub, pictures: Path, switches: dict[str, str]) -> None:
    known, known_sent, known_fetched = done(known_python, "inference_sdk", stub, host, pictures, switches)
    ours, ours_sent, ours_fetched = done(sys.executable, "florence2.client", stub, host, pictures, switches)
    assert {name: known_names(value) for name, value in ours.items()} == {name: known_names(value) for name, value in known.items()}
    assert ours_sent == known_sent
    assert ours_fetched == known_fetched


def known_names(value: str) -> set[str]:
    """An outcome as far as users of the known client tell it apart; our errors are of more classes at once."""
    names = set(value.split())
    return names - {"InvalidInputFormatError", "HTTPServerConnectionError"}
