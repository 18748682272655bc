"""Nothing that is there is written over: names that commands choose, and names that users choose."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from florence2.errors import InvalidOption
from florence2.outputs import NewFiles, check_folder, new_folder, refuse_url, write_new


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    (tmp_path / "a-od.png").write_bytes(b"mine")
    (tmp_path / "a-od-2.png").mkdir()
    files = NewFiles(tmp_path)
    names = []
    for content in (b"1", b"2"):
        with files.create("a", ".png", "-od") as file:
            file.write(content)
        names.append(Path(file.name).name)
    assert names == ["a-od-3.png", "a-od-4.png"]
    assert [(tmp_path / name).read_bytes() for name in ("a-od.png", *names)] == [b"mine", b"1", b"2"]


def test_processes_at_the_same_time_take_different_names(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from florence2.outputs import NewFiles\n"
        "for number in range(50):\n"
        "    with NewFiles(Path(sys.argv[1])).create('a', '.txt') as file: file.write(f'{sys.argv[2]} {number}'.encode())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 150


def test_a_file_that_could_not_be_finished_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TypeError), NewFiles(tmp_path).create("a", ".png") as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["x" * 255, "é" * 127, "🐱" * 63, os.fsdecode(b"\xff" * 255)])
def test_a_name_that_would_be_too_long_is_cut(tmp_path: Path, stem: str) -> None:
    for _ in range(2):
        with NewFiles(tmp_path).create(stem, ".png", "-caption-to-phrase-grounding"):
            pass
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert all(name.startswith(stem[:40]) and "-caption-to-phrase-grounding" in name and name.endswith(".png") for name in names)


def test_a_text_gets_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    assert write_new(folder, "evaluation", ".json", "é\n") == folder / "evaluation.json"
    assert write_new(folder, "evaluation", ".json", "[]\n") == folder / "evaluation-2.json"
    assert (folder / "evaluation.json").read_bytes() == "é\n".encode()


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert new_folder(tmp_path / "out") == tmp_path / "out"
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    assert new_folder(tmp_path / "out") == tmp_path / "out-2"
    check_folder(tmp_path / "out" / "deep" / "deeper", "output")
    assert not (tmp_path / "out" / "deep").exists()
    with pytest.raises(InvalidOption, match=r"a\.png is no folder"):
        check_folder(tmp_path / "out" / "a.png" / "deep", "output")


@pytest.mark.parametrize("given", ["s3://bucket/run", Path("s3://bucket/run"), Path("gs://bucket"), "file:///data/run", "s3:///run"])
def test_a_url_is_no_folder(given: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = str(given).split(":")[0] + "://"
    for refuse in (refuse_url, check_folder):
        with pytest.raises(InvalidOption, match=f"output must be a folder of this machine.*got the URL {url}[a-z]"):
            refuse(given, "output")  # type: ignore[operator]
    with pytest.raises(InvalidOption, match="got the URL"):
        new_folder(Path(given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["s3", "s3:run", "a/s3:/run", "C:/data", "/data/s3://run"])
def test_what_only_resembles_a_url_is_a_folder(given: str) -> None:
    refuse_url(given, "output")
    refuse_url(Path(given), "output")


def test_a_full_disk_names_the_file_and_leaves_no_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        name = str(tmp_path / "evaluation.json")

        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "evaluation.json").touch()
    monkeypatch.setattr(NewFiles, "_created", lambda *_: Full())
    with pytest.raises(OSError, match=r"No space left on device: '.*evaluation\.json'"):
        write_new(tmp_path, "evaluation", ".json", "x")
    assert not (tmp_path / "evaluation.json").exists()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(OSError, match="/proc/gone"):
        write_new(Path("/proc/gone"), "a", ".json", "x")
