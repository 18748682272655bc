"""Which images the words of a command name."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from florence2.errors import InvalidImage, InvalidRequest
from florence2.images import read_image
from florence2.inputs.find import find_inputs
from florence2.inputs.input import Input
from florence2.inputs.pictures import read


def png(size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures, one without a suffix, and other files."""
    for name in ("b.png", "a.jpg", "no suffix", ".hidden.png", "[1].png", "sub/c.png", "sub/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    for name in ("notes.txt", "broken.jpg", "sub/labels.csv"):
        (tmp_path / name).write_text("words")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words: str, lists: tuple[str, ...] = ()) -> tuple[list[Input], list[str]]:
    notices: list[str] = []
    return find_inputs(words, lists, notices.append), notices


def names(*words: str, lists: tuple[str, ...] = ()) -> list[str]:
    return [one.name for one in found(*words, lists=lists)[0]]


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_files_keep_the_name_that_was_given(here: Path) -> None:
    given = ["b.png", "./b.png", str(here / "b.png"), "sub/../b.png"]
    inputs, notices = found(*given)
    assert [one.name for one in inputs] == given
    assert all(one.error is None and read(one).size == (6, 4) for one in inputs)
    assert [one.stem for one in inputs] == ["b"] * 4
    assert notices == []


def test_a_folder_is_its_pictures_by_name(here: Path) -> None:
    inputs, notices = found(".")
    assert [one.name for one in inputs] == [os.path.join(".", name) for name in ("[1].png", "a.jpg", "b.png", "broken.jpg", "no suffix")]
    assert [one.error is None for one in inputs] == [True, True, True, False, True]
    assert notices == [".: left out 1 file that is no picture"]
    assert names("sub") == [os.path.join("sub", "c.png")]
    assert names("sub/") == ["sub/c.png"]


def test_patterns_that_no_shell_has_expanded(here: Path) -> None:
    assert names("*.png") == ["[1].png", "b.png"]
    assert names("sub/*") == ["sub/c.png"]
    assert names("sub/**") == ["sub/c.png", "sub/deep/d.png"]
    assert names("**/*.png") == ["[1].png", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert names("[ab].*") == ["a.jpg", "b.png"]
    assert names("?.png", "a.jpg") == ["b.png", "a.jpg"]


def test_pipes_in_folders_are_no_pictures(here: Path) -> None:
    os.mkfifo(here / "sub" / "camera.png")
    (here / "sub" / "gone.png").symlink_to("nowhere.png")
    assert names("sub") == names("sub/*") == ["sub/c.png", "sub/gone.png"]


def test_a_name_that_is_there_is_no_pattern(here: Path) -> None:
    assert names("[1].png") == ["[1].png"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("missing.png", "there is no file 'missing.png'; the current folder is"),
        ("no/*.png", "no file matches 'no/*.png'"),
        ("*.txt", "no picture among 1 file of '*.txt'"),
        ("<OD>", "a task goes behind --task or --prompt"),
        ("caption", "a task goes behind --task or --prompt"),
        ("notes.txt", "notes.txt: not an image"),
        ("file://nas/share/a.png", "is a file of another machine"),
        ("empty", "there is no file in the folder 'empty'"),
        ("empty.png", "empty.png is empty"),
        ("/dev/null/x.png", "can't be read"),
        ("s3://bucket/a.png", "s3://bucket/a.png: s3:// is not fetched"),
        ("ftp://me:secret@host/a.png?key=secret", "ftp://host/a.png: ftp:// is not fetched"),
        ("http://", "http://…: Expected"),
        ("https://me:secret@", "https://…: Expected"),
        ("file:///missing.png", "there is no file 'file:///missing.png'"),
        ("data:image/png;base64,@@", "can't be decoded"),
        ("data:image/png;base64", "can't be decoded: there is no comma in it"),
        ("data:image/png;base64,", "is empty"),
        ("data:,words", "not an image"),
    ],
)
def test_what_cannot_be_an_image_is_told_without_decoding(here: Path, word: str, said: str) -> None:
    (here / "empty").mkdir()
    (here / "empty.png").touch()
    ((one,), _) = found(word)
    assert one.error is not None
    assert said in one.error.message
    assert "secret" not in one.error.message + one.shown
    assert one.name == word
    assert len(one.error.message) < 500


def test_a_link_to_nowhere_a_loop_and_a_folder_without_permission(here: Path) -> None:
    (here / "nowhere.png").symlink_to("gone.png")
    (here / "loop.png").symlink_to("loop.png")
    for word in ("nowhere.png", "loop.png"):
        assert found(word)[0][0].error is not None


def test_pipes_and_devices_are_left_to_be_read_once(here: Path) -> None:
    os.mkfifo(here / "pipe")
    assert found("pipe")[0] == [Input("pipe", path=here / "pipe")]  # does not block


@pytest.mark.parametrize("ending", ["ppm", "ico", "tga"])
def test_pictures_of_other_formats_in_folders_are_named_with_the_reason(here: Path, ending: str) -> None:
    Image.new("RGB", (16, 16), "red").save(here / f"x.{ending}")
    inputs, _ = found(".")
    (one,) = [one for one in inputs if one.name.endswith(ending)]
    assert one.error is not None
    assert "convert it to JPEG or PNG" in one.error.message


def test_a_picture_on_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, png((3, 9)))
    (one,), _ = found("-")
    assert (one.name, one.stem, one.error) == ("-", "stdin", None)
    assert read(one).size == (3, 9)


@pytest.mark.parametrize(("content", "said"), [(b"", "standard input is empty"), (b"words", "standard input: not an image")])
def test_standard_input_without_a_picture(here: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str) -> None:
    stdin(monkeypatch, content)
    ((one,), _) = found("-")
    assert one.error is not None
    assert one.error.message.startswith(said)


def test_a_terminal_is_not_waited_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, png())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    ((one,), _) = found("-")
    assert one.error is not None
    assert "terminal" in one.error.message


class Endless(io.RawIOBase):
    """Text without an end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        buffer[:] = b"y" * len(buffer)
        return len(buffer)


@pytest.mark.timeout(20)
def test_what_has_no_end_is_refused_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    ((one,), _) = found("-")
    assert "not an image in a format that is read here" in str(one.error)
    with pytest.raises(InvalidImage, match="not an image in a format that is read here"):
        read_image("/dev/zero")


def test_standard_input_is_read_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"b.png\n-\n")
    for words, lists in ((("-", "-"), ()), (("-",), ("-",)), (("@-", "-"), ()), ((), ("-",))):
        with pytest.raises(InvalidRequest, match="once"):
            found(*words, lists=lists)


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        "DATA:image/png;BASE64," + base64.b64encode(png()).decode(),
        "data:image/png;base64," + base64.b64encode(png()).decode().rstrip("="),
        "data:image/png;base64," + quote(base64.b64encode(png()).decode(), safe=""),
        "data:image/png;base64,\n" + base64.encodebytes(png()).decode(),
        "data:;base64," + base64.urlsafe_b64encode(png()).decode(),
        "data:image/png," + quote(png()),
    ],
)
def test_data_uris(uri: str) -> None:
    ((one,), _) = found(uri)
    assert one.error is None
    assert read(one).size == (6, 4)
    assert (one.name, one.stem) == (uri, "data")
    assert len(one.shown) <= 100


def test_file_urls(here: Path) -> None:
    word = (here / "no suffix").as_uri()
    ((one,), _) = found(word)
    assert (one.name, one.stem, one.error) == (word, "no suffix", None)
    assert names((here / "sub").as_uri()) == [str(here / "sub" / "c.png")]
    assert found(word.replace("file:///", "file://localhost/"))[0][0].error is None


@pytest.mark.parametrize(
    ("url", "shown", "stem"),
    [
        ("https://example.org/a/cat.jpg", "https://example.org/a/cat.jpg", "cat"),
        ("HTTP://Example.org:8080/cat.jpg?sig=secret#secret", "HTTP://Example.org:8080/cat.jpg", "cat"),
        ("https://me:secret@example.org/", "https://example.org/", "example.org"),
        ("https://me:sec@ret@example.org/x%2Fy%20z.png", "https://example.org/x%2Fy%20z.png", "y-z"),
        ("https://example.org/@me/caf%C3%A9.png", "https://example.org/@me/caf%C3%A9.png", "café"),
        ("https://example.org", "https://example.org", "example.org"),
        ("https://example.org/..", "https://example.org/..", "example.org"),
        ("https://example.org/%2e%2e%2f%2e%2e%2fetc", "https://example.org/%2e%2e%2f%2e%2e%2fetc", "etc"),
        ("http://[::1]:8000/a.png", "http://[::1]:8000/a.png", "a"),
        ("https://example.org/" + "a" * 300 + ".png", "https://example.org/" + "a" * 80 + "…", "a" * 100),
    ],
)
def test_urls_are_shown_without_keys_and_drawn_under_their_last_name(url: str, shown: str, stem: str) -> None:
    one = Input(url, "url")
    assert (one.shown, one.stem) == (shown, stem)
    assert found(url)[0] == [one]


def test_urls_follow_the_switches_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_NON_HTTPS_URL_INPUT", "false")
    assert found("http://example.org/a.png")[0][0].error is not None
    assert found("https://example.org/a.png")[0][0].error is None


@pytest.mark.parametrize(
    "content",
    [
        b"b.png\na.jpg\n",
        b"b.png\na.jpg",
        b"b.png\r\n\r\na.jpg\r\n",
        b"b.png\0a.jpg\0",
        b"\xef\xbb\xbfb.png\na.jpg\n",
        b"\xff\xfe" + "b.png\r\na.jpg\r\n".encode("utf-16-le"),
        b"\xfe\xff" + "b.png\r\na.jpg\r\n".encode("utf-16-be"),
    ],
)
def test_lists_of_every_origin(here: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    (here / "list.txt").write_bytes(content)
    assert names(lists=("list.txt",)) == ["b.png", "a.jpg"]
    assert names("@list.txt") == ["b.png", "a.jpg"]
    assert names("[1].png", "@list.txt", lists=("list.txt",)) == ["[1].png", "b.png", "a.jpg", "b.png", "a.jpg"]
    stdin(monkeypatch, content)
    assert names(lists=("-",)) == ["b.png", "a.jpg"]


def test_a_list_may_hold_all_that_the_command_line_may(here: Path) -> None:
    (here / "list.txt").write_text("sub\n*.png\nhttps://example.org/a.png\nmissing.png\n")
    inputs, _ = found("@list.txt")
    assert [one.name for one in inputs] == ["sub/c.png", "[1].png", "b.png", "https://example.org/a.png", "missing.png"]
    assert [one.error is None for one in inputs] == [True, True, True, True, False]


def test_names_in_lists_that_are_no_utf8_or_hold_line_breaks(here: Path) -> None:
    odd = [b"\xff.png", b"two\nlines.png"]
    for name in odd:
        Path(os.fsdecode(name)).write_bytes(png())
    (here / "list").write_bytes(b"\0".join(odd))
    inputs, _ = found("@list")
    assert [os.fsencode(one.name) for one in inputs] == odd
    assert all(one.error is None for one in inputs)


def test_a_file_whose_name_begins_with_the_sign_of_lists(here: Path) -> None:
    (here / "@me.png").write_bytes(png())
    assert names("@me.png") == ["@me.png"]


@pytest.mark.parametrize(
    ("words", "lists", "said"),
    [
        ((), (), "no image is given"),
        ((), ("nothing.txt",), "there is no list 'nothing.txt'"),
        (("@nothing.txt",), (), "there is no list 'nothing.txt'"),
        ((), ("empty.txt",), "no image is named in empty.txt"),
        ((), ("sub",), "sub is a folder"),
        ((), ("b.png",), "the list b.png is a picture"),
    ],
)
def test_lists_that_are_none(here: Path, words: tuple[str, ...], lists: tuple[str, ...], said: str) -> None:
    (here / "empty.txt").write_text("\n \r\n")
    with pytest.raises(InvalidRequest) as caught:
        found(*words, lists=lists)
    assert said in caught.value.message
