"""Folders with all that is below them, names, and what is left out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from florence2.inputs.find import find_inputs
from florence2.inputs.input import Input
from florence2.inputs.pictures import read_pictures
from florence2.inputs.selection import Selection
from tests.inputs.test_find import png


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(png())


def found(*words: str, lists: tuple[str, ...] = ()) -> tuple[list[Input], list[str]]:
    notices: list[str] = []
    return find_inputs(words, lists, notices.append, is_recursive=True, are_distinct=True), notices


def ids(*words: str) -> list[str]:
    return [one.id for one in found(*words)[0]]


def test_all_below_a_folder_by_name(here: Path) -> None:
    put("p/b.png", "p/a/z.png", "p/a-b/y.png", "p/.hidden/x.png", "p/.x.png", "p/c/d/e/f.png")
    (here / "p" / "empty").mkdir()
    (here / "p" / "notes.txt").write_text("words")
    inputs, notices = found("p")
    assert [one.id for one in inputs] == ["p/a/z.png", "p/a-b/y.png", "p/b.png", "p/c/d/e/f.png"]
    assert [one.relative_name for one in inputs] == ["a/z.png", "a-b/y.png", "b.png", "c/d/e/f.png"]
    assert {one.root for one in inputs} == {"p"}
    assert [one.path for one in inputs] == [here / one.name for one in inputs]
    assert notices == ["p: left out 1 file that is no picture"]


def test_patterns_name_what_is_below_their_folder(here: Path) -> None:
    put("p/1/a.png", "p/2/b.png", "p/c.png")
    assert [(one.root, one.relative_name) for one in found("p/*")[0]] == [("p", "1/a.png"), ("p", "2/b.png"), ("p", "c.png")]
    assert [one.relative_name for one in found("p/*/*.png")[0]] == ["1/a.png", "2/b.png"]
    assert [(one.root, one.relative_name) for one in found(str(here / "p" / "[12]"))[0]] == [
        (str(here / "p"), "1/a.png"),
        (str(here / "p"), "2/b.png"),
    ]


def test_links_are_followed_and_loops_end(here: Path) -> None:
    put("p/sub/a.png", "far/b.png")
    Path("p/sub/up").symlink_to("..")
    Path("p/0").symlink_to("sub")
    Path("p/far").symlink_to(here / "far")
    Path("p/gone").symlink_to("nowhere")
    Path("p/itself").symlink_to("itself")
    inputs, notices = found("p")
    assert [one.id for one in inputs] == ["p/far/b.png", "p/sub/a.png"]
    assert "left out 2 links to folders" in notices[0]


def test_a_file_that_is_named_again_comes_once(here: Path) -> None:
    put("p/a.png", "p/b.png")
    Path("link.png").symlink_to("p/b.png")
    words = ("p/a.png", "p", "./p/*.png", "link.png", "https://example.org/a.png", "https://example.org/a.png")
    inputs, notices = found(*words)
    assert [one.id for one in inputs] == ["p/a.png", "p/b.png", "https://example.org/a.png"]
    assert notices == ["left out 5 images that are named twice, the first p/a.png"]
    assert len(find_inputs(words, [], lambda _: None)) == 8


def test_what_a_run_has_written_is_no_input(here: Path) -> None:
    put("p/a.png", "p/out/coco/images/a.png", "p/out/.florence2/pictures/x.png")
    inputs, notices = found("p")
    assert ([one.id for one in inputs], notices) == (["p/a.png"], ["p: left out 1 folder that florence2 label has written"])
    assert ids("p/out") == ["p/out/coco/images/a.png"]


def test_empty_folders_and_those_without_pictures_are_told(here: Path) -> None:
    (here / "empty" / "more").mkdir(parents=True)
    (here / "words").mkdir()
    (here / "words" / "a.txt").write_text("words")
    ((empty,), _), ((words,), _) = found("empty"), found("words")
    assert "there is no file in the folder 'empty' or below it" in str(empty.error)
    assert "no picture among 1 file of" in str(words.error)


@pytest.mark.parametrize(
    "name", ["grün/ö.png", "日本/語.png", "p q/it's.png", "new\nline.png", unicodedata.normalize("NFD", "é.png"), "#page=3.png"]
)
def test_names_of_every_kind(here: Path, name: str) -> None:
    put(f"p/{name}")
    ((one,), _) = found("p")
    assert (one.id, one.relative_name) == (f"p/{name}", name)
    (future,) = read_pictures([one], Selection())
    assert not isinstance(future.result().content, Exception)


def test_names_that_are_no_utf8(here: Path) -> None:
    put(os.fsdecode(b"p/\xff\xfe.png"))
    ((one,), _) = found("p")
    assert os.fsencode(one.id) == b"p/\xff\xfe.png"
    (future,) = read_pictures([one], Selection())
    assert not isinstance(future.result().content, Exception)


def test_pipes_and_files_that_vanish(here: Path) -> None:
    put("p/a.png", "p/b.png")
    os.mkfifo("p/c.png")
    inputs, _ = found("p")
    Path("p/a.png").unlink()
    (gone, there) = [future.result() for future in read_pictures(inputs, Selection())]
    assert "there is no file" in str(gone.content)
    assert not isinstance(there.content, Exception)


def test_a_folder_that_cannot_be_read_is_told_beside_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("p/a.png", "p/locked/b.png")
    scan = os.scandir

    def refusing(path: str) -> object:
        if path == "p/locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    locked, other = found("p")[0]
    assert (locked.id, other.id) == ("p/locked", "p/a.png")
    assert "the folder 'p/locked' can't be read: Permission denied" in str(locked.error)


def test_names_for_what_is_no_file(here: Path) -> None:
    urls = ["https://example.org/a/b%20c.jpg?key=1", "https://example.org/", "https://example.org/x.tar.gz/"]
    assert [Input(url, "url").relative_name for url in urls] == ["b-c.jpg", "example.org", "x.tar.gz"]
    data = Input("data:image/png;base64," + "A" * 10000, "data")
    assert (len(data.id), data.relative_name) == (37, "data")
    assert Input("data:,a", "data").id != Input("data:,b", "data").id
