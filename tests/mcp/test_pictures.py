"""Which pictures a call may name: files below allowed folders alone, public https URLs, data URIs within bounds."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path

import pytest
from mcp import Client
from PIL import Image

from florence2.errors import InvalidOption
from florence2.mcp import pictures
from florence2.mcp.folders import Folders
from florence2.url_policy import FetchPolicy
from tests.docs.markdown import ROOT
from tests.mcp.conftest import Tools, words_of

ELSEWHERE = "is not below a folder whose files may be read"


def png(size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "white").save(file, "PNG")
    return file.getvalue()


def test_a_file_may_be_named_in_several_ways(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools.folder / "sub").mkdir()
    (tools.folder / "sub" / "b c.png").write_bytes(png())
    (tools.folder / "link.png").symlink_to("sub/b c.png")
    monkeypatch.setenv("HOME", str(tools.folder))
    absolute = tools.folder / "sub" / "b c.png"
    for image in (str(absolute), "sub/b c.png", "sub/../a.png", "link.png", "~/a.png", f"file://{absolute}".replace(" ", "%20")):
        answer = tools.call("caption", image=image)
        assert not answer.is_error, words_of(answer)


@pytest.mark.parametrize("image", [
    "../secret.png", "{outside}/secret.png", "{outside}/absent.png", "a/../../secret.png", "out.png", "out/secret.png", "dangling.png",
    "~/../etc/passwd", "/etc/passwd", "/proc/self/environ", "/dev/zero", "file:///etc/passwd",
])  # fmt: skip
def test_what_lies_elsewhere_is_refused_whether_it_is_there_or_not(tools: Tools, image: str) -> None:
    outside = tools.folder.parent
    (outside / "secret.png").write_bytes(png())
    (outside / "allowed-too").mkdir()
    (tools.folder / "out.png").symlink_to(outside / "secret.png")
    (tools.folder / "out").symlink_to(outside)
    (tools.folder / "dangling.png").symlink_to(outside / "nothing-here")
    message = tools.refused("caption", image=image.format(outside=outside))
    assert ELSEWHERE in message
    assert "nothing-here" not in message
    beside = tools.refused("caption", image=f"{outside}/allowed-too/secret.png")  # a name that only begins like the folder's
    assert ELSEWHERE in beside


def test_what_is_no_file_is_refused_without_waiting(tools: Tools) -> None:
    (tools.folder / "folder").mkdir()
    os.mkfifo(tools.folder / "pipe.png")
    (tools.folder / "circle.png").symlink_to("circle.png")
    (tools.folder / "empty.png").touch()
    (tools.folder / "text.png").write_text("no picture")
    (tools.folder / "broken.png").write_bytes(png()[:50])
    for image, told in {
        "absent.png": "there is no file 'absent.png'; check the path",
        "a.png/b.png": "there is no file",
        "folder": "is a folder; give the path of an image file",
        "pipe.png": "is no regular file",
        "circle.png": "symbolic links",
        "a\0.png": "is no path of a file",
        "x" * 5000: "can't be read: File name too long",
        "empty.png": "is empty",
        "text.png": "text.png",
        "broken.png": "damaged",
        "  ": "image is empty",
        "file://host/a.png": "a file of another machine",
    }.items():
        message = tools.refused("caption", image=image)
        assert told in message, (image, message)
        assert str(Path.cwd()) not in message


def test_without_a_folder_no_file_is_read(tools: Tools) -> None:
    tools.allowed = []
    message = tools.refused("caption", image=str(tools.folder / "a.png"))
    assert "local files may not be read here" in message
    assert "--allow FOLDER" in message
    assert not tools.call("caption", image=f"data:image/png;base64,{base64.b64encode(png()).decode()}").is_error


def test_a_file_that_becomes_another_is_not_followed(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exchanged for a link between the check and the reading."""
    folders = Folders([tools.folder])
    checked = folders.find("a.png")
    (tools.folder.parent / "secret.png").write_bytes(png())
    checked.unlink()
    checked.symlink_to(tools.folder.parent / "secret.png")
    monkeypatch.setattr(folders, "find", lambda text: checked)
    with pytest.raises(Exception, match=r"a\.png.* can't be read"):
        folders.read("a.png", 1000)


def test_a_relative_path_is_looked_for_in_each_folder(tools: Tools) -> None:
    second = tools.folder.parent / "second"
    second.mkdir()
    (second / "b.png").write_bytes(png((9, 9)))
    (second / "a.png").write_bytes(png((9, 9)))
    tools.allowed = [tools.folder, second]
    sizes = [tools.call("caption", image=name).structured_content["image"]["width"] for name in ("a.png", "b.png", str(second / "a.png"))]
    assert sizes == [60, 9, 9]
    assert "there is no file 'c.png'" in words_of(tools.call("caption", image="c.png"))


def test_the_page_tells_what_to_do_about_these_messages(tools: Tools) -> None:
    page = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8")
    elsewhere = tools.refused("caption", image="/etc/passwd")
    tools.allowed = []
    for message in (elsewhere, tools.refused("caption", image="a.png")):
        assert any(quoted in message for quoted in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8")
def test_a_folder_whose_name_is_no_unicode_is_named_with_escapes(tools: Tools) -> None:
    """The protocol is JSON in UTF-8: its texts hold nothing else, or the process ends."""
    folder = Path(os.fsdecode(os.fsencode(tools.folder) + b"\xff"))
    folder.mkdir()
    tools.allowed = [folder]

    async def refused(client: Client) -> str:
        return f"{client.instructions}{words_of(await client.call_tool('caption', {'image': '/elsewhere.png'}))}"

    said = tools.talk(refused)
    assert said.encode().count(rb"allowed\udcff") == 2


def test_a_folder_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for given in ("file", "absent"):
        with pytest.raises(InvalidOption, match="--allow takes a folder that is there"):
            Folders([tmp_path / given])


def test_large_files_and_data_are_refused(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    monkeypatch.setattr(pictures, "MAX_BASE64_CHARS", 200)
    (tools.folder / "large.png").write_bytes(png() + bytes(200))
    assert "more than 100 bytes" in tools.refused("caption", image="large.png")
    assert "more than 100 bytes" in tools.refused("caption", image="data:image/png;base64," + 300 * "A")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("data:image/png;base64,????", "no base64"),
        ("data:image/png;base64,", "empty"),
        ("data:text/plain;base64,aGVsbG8gd29ybGQ=", "the bytes of the data URI"),
        ("http://example.com/a.png", "begins with https://, got http:"),
        ("https://127.0.0.1/a.png", "public domain"),
        ("https://localhost/a.png", "public domain"),
        ("https://169.254.169.254/latest/meta-data", "public domain"),
        ("https://[::1]/a.png", "public domain"),
        ("https://user:key@example.com/a.png", "must not hold a user name"),
        ("https://example.com\\@127.0.0.1/a.png?key=1", "can't be fetched"),
        ("ftp://example.com/a.png", "https://"),
    ],
)
def test_urls_and_data_that_are_not_taken(tools: Tools, image: str, told: str) -> None:
    message = tools.refused("caption", image=image)
    assert told in message
    assert "key" not in message.replace("user name or password", "")


def test_a_name_of_a_private_address_is_not_reached(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name whose address is this machine's own."""
    import socket

    def resolved(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    message = tools.refused("caption", image="https://rebound.example.com/a.png?token=hidden")
    assert re.search(r"https://rebound\.example\.com/a\.png can't be fetched: .*(public|private)", message)


def test_urls_can_be_switched_off(tools: Tools) -> None:
    tools.policy = FetchPolicy(allow_urls=False)
    assert "switched off" in tools.refused("caption", image="https://example.com/a.png")
    listed = tools.talk(lambda client: client.list_tools())
    assert not any(tool.annotations.open_world_hint for tool in listed.tools)
