"""There is one list of formats, and whatever is not on it reaches no plugin of Pillow, whichever way it comes."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from florence2.client.configuration import InferenceConfiguration
from florence2.client.inputs import encode, identify
from florence2.datasets.pictures import Pictures
from florence2.errors import InvalidImage
from florence2.image_files import FORMATS, READ_FORMATS
from florence2.images import read_image, size_of
from florence2.server.roboflow import image_field
from florence2.server.roboflow.refusals import CAUSE
from florence2.server.roboflow.schemas import ImageField
from florence2.server.settings import Settings
from florence2.sources import remember

PACKAGE = Path(__file__).parents[2] / "src" / "florence2"
SCALED = InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=16)
TO_A_KB = replace(SCALED, max_image_bytes=1024)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


FOREIGN = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n",
    "PSD": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x28\0\0\0\x28\0\x08\0\3" + bytes(64),
    "XBM": b"#define x_width 8\n#define x_height 1\nstatic char x_bits[] = {\n0x00 };\n",
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    **{kind: saved(kind) for kind in ("PPM", "TGA", "PCX", "SGI", "DDS", "QOI", "ICO", "JPEG2000")},
}


def by_path(data: bytes, folder: Path) -> object:
    (folder / "picture.png").write_bytes(data)
    return read_image(folder / "picture.png")


def by_data_set(data: bytes, folder: Path) -> object:
    (folder / "picture.png").write_bytes(data)
    return Pictures(folder).size(folder / "picture.png")


def by_server(data: bytes, _: Path) -> object:
    value = base64.b64encode(data).decode()
    return image_field.read(ImageField(type="base64", value=value), value, Settings())


def by_server_fetched(data: bytes, _: Path) -> object:
    return image_field.read(ImageField(type="url", value="https://a.example/a.png"), data, Settings())


WAYS: dict[str, Callable[[bytes, Path], object]] = {
    "engine, bytes": lambda data, _: read_image(data),
    "engine, path": by_path,
    "drawing": lambda data, _: remember(data).read(),
    "data set": by_data_set,
    "client, bytes": lambda data, _: encode(identify(data), TO_A_KB),
    "client, fetched": lambda data, _: encode(identify("https://a.example/a.png"), TO_A_KB, data),
    "server, base64": by_server,
    "server, fetched": by_server_fetched,
}


@pytest.fixture
def asked_plugins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats outside the list whose plugin was asked for anything."""
    Image.init()
    asked: list[str] = []

    def spy(kind: str) -> Callable[..., object]:
        def note(*_: object) -> object:
            asked.append(kind)
            raise SyntaxError(kind)

        return note

    for kind in set(Image.OPEN) - set(FORMATS):
        monkeypatch.setitem(Image.OPEN, kind, (spy(kind), spy(kind)))
    monkeypatch.setattr(Image, "open", spy("Image.open"))
    return asked


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("way", WAYS)
def test_other_formats_are_refused_and_reach_no_plugin(way: str, kind: str, tmp_path: Path, asked_plugins: list[str]) -> None:
    data = FOREIGN[kind].ljust(2048, b" ")
    with pytest.raises(InvalidImage) as caught:
        WAYS[way](data, tmp_path)
    assert asked_plugins == []
    assert caught.value.field == "image"
    assert READ_FORMATS in caught.value.message
    assert caught.value.message.startswith(CAUSE) == way.startswith("server")
    assert size_of(data) is None


@pytest.mark.parametrize("kind", FOREIGN)
def test_texts_that_may_be_base64_reach_no_plugin(kind: str, asked_plugins: list[str]) -> None:
    text = base64.b64encode(FOREIGN[kind].ljust(2048, b" ")).decode()
    for given in (text, "data:image/png;base64," + text):
        with contextlib.suppress(InvalidImage):
            encode(identify(given), SCALED)
    assert asked_plugins == []


def test_the_formats_on_the_list_are_read_every_way(tmp_path: Path) -> None:
    for kind in FORMATS:
        for way, read in WAYS.items():
            assert read(saved(kind), tmp_path) is not None, (way, kind)
    assert READ_FORMATS.upper().split(", ") == list(FORMATS)


def test_nothing_opens_files_past_the_list() -> None:
    opening = re.compile(r"\bImage\.(open|OPEN|preinit|init)\b")
    assert [path.name for path in PACKAGE.rglob("*.py") if opening.search(path.read_text("utf-8"))] == ["read.py"]
    signatures = re.compile(r"GIF8|RIFF|\\x89PNG|\\xff\\xd8")
    inside = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if signatures.search(path.read_text("utf-8"))}
    assert inside == {"image_files"}


@pytest.mark.parametrize("module", ["florence2.images", "florence2.image_files", "florence2.sources", "florence2.client"])
def test_pictures_come_without_torch(module: str) -> None:
    script = f"import sys, {module}; print([name for name in ('torch', 'safetensors', 'huggingface_hub') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_structure_of_files_comes_without_pillow() -> None:
    script = "import sys, florence2.image_files, florence2.image_files.base64_text; print('PIL' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "False False"
