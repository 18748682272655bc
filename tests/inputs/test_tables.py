"""Lists that are tables: a column of paths or URLs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from florence2.errors import InvalidRequest, MissingExtra
from florence2.inputs.find import find_inputs
from tests.inputs.test_find import png

TABLES = {
    "a.csv": "id,file_name,label\n1,a.png,cat\n2,https://example.org/b.png,\n3,,x\n",
    "semicolons.csv": "\ufefflabel;Image\nx;a.png\ny;https://example.org/b.png\n",
    "quoted.csv": 'text,path\r\n"a, ""b""\r\nc",a.png\r\n,https://example.org/b.png\r\n',
    "mixed.csv": "image;note, long, and longer\na.png;1\nhttps://example.org/b.png;2\n",
    "a.tsv": "label\turl\nx, y\ta.png\nz\thttps://example.org/b.png\n",
    "a.jsonl": '{"image": "a.png", "prefix": "<OD>"}\n\n{"image": null}\n{"image": "https://example.org/b.png"}\n',
    "texts.jsonl": '"a.png"\n"https://example.org/b.png"\n',
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*words: str, column: str | None = None) -> list[str]:
    return [one.name for one in find_inputs(words, [], lambda _: None, column=column)]


@pytest.mark.parametrize("name", ["semicolons.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("order", ["le", "be"])
def test_tables_of_windows(here: Path, name: str, order: str) -> None:
    (here / name).write_bytes(("\ufeff" + TABLES[name].lstrip("\ufeff")).encode(f"utf-16-{order}"))
    assert names(name) == ["a.png", "https://example.org/b.png"]


@pytest.mark.parametrize(("name", "content"), list(TABLES.items()))
def test_tables_of_every_kind(here: Path, name: str, content: str) -> None:
    (here / name).write_text(content, "utf-8", newline="")
    assert names(f"@{name}") == names(name) == ["a.png", "https://example.org/b.png"]
    assert [one.name for one in find_inputs([], [name], lambda _: None)] == ["a.png", "https://example.org/b.png"]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_parquet(here: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    cells = pyarrow.array(
        ["a.png", None, "https://example.org/b.png"], pyarrow.large_string() if kind == "large_string" else pyarrow.string()
    )
    table = pyarrow.table({"n": [1, 2, 3], "image_url": cells.dictionary_encode() if kind == "dictionary" else cells})
    parquet.write_table(table, here / "a.parquet")
    assert names("@a.parquet") == ["a.png", "https://example.org/b.png"]
    with pytest.raises(InvalidRequest, match="the column n holds int64, expected texts"):
        names("a.parquet", column="n")


def test_a_column_by_name_and_one_that_is_not_there(here: Path) -> None:
    (here / "a.csv").write_text("before,after\na.png,b.png\n")
    assert names("a.csv", column="before") == ["a.png"]
    with pytest.raises(InvalidRequest, match=r"its columns are before, after\. Say which holds paths or URLs with --column"):
        names("a.csv")
    with pytest.raises(InvalidRequest, match=r"no column 'between'"):
        names("a.csv", column="between")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"image": "a.png"}\n{broken\n', "a.jsonl, line 2 is no JSON"),
        ("a.jsonl", '{"image":' + "[" * 100_000 + "\n", "a.jsonl, line 1 is no JSON"),
        ("a.jsonl", '{"image": {"bytes": ""}}\n', "line 1: expected a path or URL"),
        ("a.jsonl", "[1]\n", "line 1: expected an object or a text"),
        ("a.parquet", "words", "is no Parquet that can be read"),
        ("a.csv", "", "none of the columns image, path"),
        ("a.csv", "image\n", "no image is named in a.csv"),
    ],
)
def test_tables_that_are_none(here: Path, name: str, content: str, said: str) -> None:
    (here / name).write_text(content)
    with pytest.raises(InvalidRequest) as caught:
        names(name)
    assert said in caught.value.message
    assert "can't be read: " not in caught.value.message


def test_paths_that_are_only_in_the_folder_of_the_table(here: Path) -> None:
    (here / "data" / "images").mkdir(parents=True)
    for name in ("a.png", "images/b.png"):
        (here / "data" / name).write_bytes(png())
    (here / "data" / "list.csv").write_text("image\na.png\nimages/b.png\nmissing.png\n")
    inputs = find_inputs(["data/list.csv"], [], lambda _: None)
    assert [one.name for one in inputs] == ["a.png", "data/images/b.png", "missing.png"]  # a.png is in the current folder, too
    assert [one.error is None for one in inputs] == [True, True, False]


def test_a_column_with_folders_keeps_them_in_names(here: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        (here / name).parent.mkdir()
        (here / name).write_bytes(png())
    (here / "list.csv").write_text(f"image\ncat/1.png\n{here}/dog/1.png\n../{here.name}/dog/1.png\n")
    assert [one.relative_name for one in find_inputs(["list.csv"], [], lambda _: None)] == ["cat/1.png", "1.png", "1.png"]


def test_parquet_without_the_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: ModuleType | None = None
    monkeypatch.setitem(sys.modules, "pyarrow", hidden)  # type: ignore[arg-type]
    (here / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"florence2-engine\[parquet\]"):
        names("a.parquet")
