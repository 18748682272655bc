"""What a labelling run on a cluster lists: the same pictures under the same ids as on one machine, each once, and what lies in stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.cluster.listing import MetNames, Named, listed
from florence2.errors import InvalidRequest
from florence2.inputs.find import find_inputs
from florence2.inputs.selection import Selection

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")


def ids_of(words: list[str], notices: list[str] | None = None, **more: Any) -> list[str]:
    said = notices if notices is not None else []
    return [one.given.id for group in listed(Named(words, **more), said.append) for one in group]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "sub/c.png", "sub/deep/d.png", "run/.florence2/journal.jsonl", "run/x.png", ".hidden/y.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, "PNG")
    (tmp_path / "photos" / "link").symlink_to("sub")
    return tmp_path / "photos"


WORDS = [
    ["photos"],
    ["photos/*.png"],
    ["photos/**/*.png"],
    ["photos/s*"],
    ["photos/a.png", "photos"],
    ["https://example.com/a.png", "photos"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_the_ids_are_those_of_a_run_on_one_machine(photos: Path, words: list[str]):
    expected = find_inputs(words, [], lambda line: None, is_recursive=True, are_distinct=True)
    assert sorted(ids_of(words)) == sorted(one.id for one in expected)
    by_id = {one.given.id: one.given for group in listed(Named(words), print) for one in group}
    assert {name: (one.relative_name, one.root, one.path) for name, one in by_id.items()} == {
        one.id: (one.relative_name, one.root, one.path) for one in expected
    }


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_a_list_is_read_as_on_one_machine(photos: Path, suffix: str):
    names = ["photos/a.png", "photos/sub", "photos/a.png", "gone.png", "https://example.com/p.png", "local:///elsewhere/e.png"]
    write_list(photos.parent / f"list.{suffix}", names)
    expected = ["photos/a.png", "photos/sub/c.png", "photos/sub/deep/d.png", "gone.png", *names[-2:]]
    notices: list[str] = []
    assert ids_of([f"@list.{suffix}"], notices) == expected
    assert ids_of([], lists=[f"list.{suffix}"]) == ids_of([f"@local://{photos.parent}/list.{suffix}"]) == expected
    assert notices == ["left out 1 image that is named twice"]
    with pytest.raises(InvalidRequest, match=r"local:///nowhere\.\w+ can't be read"):
        ids_of([f"@local:///nowhere.{suffix}"])


def write_list(path: Path, names: list[str]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"url": names, "other": list(range(len(names)))}), path)
        return
    head, line = {".csv": ("other,path\n", "1,{}\n"), ".jsonl": ("", '{{"image": {}}}\n')}.get(path.suffix, ("", "{}\n"))
    path.write_text(head + "".join(line.format(json.dumps(name) if path.suffix == ".jsonl" else name) for name in names))


def test_a_long_list_of_lines_is_read_in_blocks(photos: Path, monkeypatch: pytest.MonkeyPatch):
    from florence2.inputs import lists

    names = [f"photos/{number:05}.png" for number in range(500)]
    for separator in ("\n", "\r\n", "\0"):
        (photos.parent / "list.txt").write_bytes(b"\xef\xbb\xbf" + separator.join(names).encode())
        short = lists.read_list("list.txt")
        with monkeypatch.context() as patch:
            patch.setattr(lists, "_SHORT_BYTES", 1)
            patch.setattr(lists, "_BLOCK_BYTES", 100)
            assert lists.read_list("list.txt") == short == names


def test_folders_and_patterns_in_a_store_are_listed_below_their_url(photos: Path):
    (photos / "link").unlink()
    root = f"local://{photos}"
    expected = [f"{root}/{name}" for name in ("a.png", "b.png", "sub/c.png", "sub/deep/d.png")]
    assert ids_of([root]) == expected
    assert ids_of([f"{root}/*.png"]) == expected[:2]
    (one,) = [one for group in listed(Named([f"{root}/sub/deep"]), print) for one in group]
    assert (one.given.relative_name, one.given.root, one.is_of_folder) == ("d.png", f"{root}/sub/deep", True)
    assert ids_of([expected[0]]) == expected[:1]
    for word, said in ((f"{root}/gone", "there is nothing at"), ("nonsense://x/y", "names no file system")):
        with pytest.raises(InvalidRequest, match=said):
            ids_of([word])


def test_memory_is_a_store_like_others():
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("a.png", "below/b.png", ".hidden/c.png"):
        system.pipe_file(f"/listing-test/{name}", b"x")
    expected = ["memory://listing-test/a.png", "memory://listing-test/below/b.png"]
    assert ids_of(["memory://listing-test"]) == ids_of(["memory://listing-test/"]) == expected
    assert ids_of(["memory://listing-test/*.png"]) == expected[:1]


def test_a_limit_takes_the_first_pictures_and_pages(photos: Path):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in range(4)]
    frames[0].save(photos / "b.tif", save_all=True, append_images=frames[1:])
    assert ids_of(["photos"], limit=3) == ["photos/a.png", "photos/b.png", "photos/b.tif"]
    groups = listed(Named(["photos"], limit=4, selection=Selection(pages="all")), print)
    last = [one for group in groups for one in group][-1]
    assert last.ids == {"photos/b.tif#page=1", "photos/b.tif#page=2"}


def test_the_output_among_the_pictures_is_left_out(photos: Path):
    notices: list[str] = []
    assert "photos/run/x.png" not in ids_of(["photos/run/x.png", "photos/a.png"], notices, output="photos/run")
    assert notices == ["left out 1 name that lies in the output folder 'photos/run'"]
    with pytest.raises(InvalidRequest, match="all that is named lies in the output"):
        ids_of(["photos/run/x.png"], output="photos/run")


def test_names_are_met_once_however_many_there_are():
    met, names = MetNames(), [f"name {number}" for number in range(5000)]
    for start in range(0, 5000, 100):
        assert all(met.add(names[start : start + 100]))
    assert not any(met.add(names))
    assert met.add(["new", "name 17", "new"]) == [True, False, False]
