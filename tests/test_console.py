"""The command line on terminals, pipes and disks of every kind; each case is a process of its own with streams of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from florence2.console import LONGEST_LINE, report, shown

LABEL = "日本 é 🐱"
# The command with an engine that answers at once, in labels that many encodings do not have.
PROGRAM = f"""
import sys, florence2.engine.engine
from concurrent.futures import Future
from florence2.results import Result

class Engine:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def submit_many(self, picture, prompts, **_):
        future = Future()
        future.set_result(Result("<OD>", "boxes", picture.size, "", "", boxes=[[1, 2, 3, 4]], labels=[{LABEL!a}]))
        return [future for _ in prompts]

florence2.engine.engine.load = lambda *_, **__: Engine()
from florence2.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.png" for name in ("ä", "b", "c")]
    for path in paths:
        Image.new("RGB", (320, 240)).save(path)
    return [*map(str, paths)]


def command(*words: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    shell = f'exec "$0" "$@" {redirect}'
    model = ("--model", "florence-2-demo") if "infer" in words else ()
    program = ["bash", "-c", shell, sys.executable, "-c", PROGRAM, *words, *model]
    return subprocess.run(program, capture_output=True, timeout=60, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("moment", ["while it is imported", "before the command"])
def test_an_interrupt_at_the_start_ends_without_a_word(moment: str) -> None:
    program = """
import builtins, sys
from florence2.__main__ import main
first, moment = builtins.__import__, sys.argv.pop(1)
def interrupted(*_, **__): raise KeyboardInterrupt
def imported(name, *more):
    if moment == "while it is imported" and name == "florence2.cli.evaluate": interrupted()
    return first(name, *more)
builtins.__import__ = imported
if moment == "before the command":
    import florence2.cli.app
    sys.modules["florence2.cli.app"].app = interrupted
main()
"""
    done = subprocess.run([sys.executable, "-c", program, moment, "models"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


ENCODINGS = [
    pytest.param({"PYTHONIOENCODING": "ascii"}, "ascii", id="ascii"),
    pytest.param({"PYTHONIOENCODING": "cp1252"}, "cp1252", id="cp1252"),
    pytest.param({"PYTHONIOENCODING": "utf-16-le"}, "utf-16-le", id="utf-16"),
    pytest.param({"PYTHONIOENCODING": "cp437:strict"}, "cp437", id="cp437"),
    pytest.param({"LC_ALL": "C"}, "utf-8", id="C"),
    pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii", id="plain-C"),
    pytest.param({"PYTHONIOENCODING": "utf-8"}, "utf-8", id="utf-8"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "encoding"), ENCODINGS)
def test_json_is_whole_in_any_encoding(images: list[str], environment: dict[str, str], encoding: str) -> None:
    done = command("infer", *images, "--prompt", "<OD>", "--json", **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [json.loads(line) for line in done.stdout.decode(encoding).splitlines()]
    assert [line["image"] for line in lines] == images
    assert all(line["response"]["<OD>"]["labels"] == [LABEL] for line in lines)
    assert (b"\\u65e5" in done.stdout) == (encoding not in ("utf-8", "utf-16-le"))


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "encoding"), ENCODINGS)
def test_lines_for_people_are_escaped_where_they_must_be(images: list[str], environment: dict[str, str], encoding: str) -> None:
    done = command("infer", *images, "gone-é.png", "--prompt", "<OD>", **environment)
    assert done.returncode == 1
    label = LABEL.encode(encoding, "backslashreplace").decode(encoding)
    assert done.stdout.decode(encoding).count(f"  {label}  [1, 2, 3, 4]") == 3
    assert len(done.stderr.decode(encoding).splitlines()) == 1


def test_other_commands_and_help_in_any_encoding(tmp_path: Path) -> None:
    for words in (["models"], ["infer", "--help"], ["train", "--help"], ["pull", str(tmp_path / "日本")]):
        done = command(*words, PYTHONIOENCODING="ascii")
        assert done.returncode == (2 if "pull" in words else 0)
        assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_run_quietly(images: list[str]) -> None:
    done = command("infer", *images * 500, "--prompt", "<OD>", redirect="| head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, b"")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["infer", "--prompt", "<OD>"], ["infer", "--prompt", "<OD>", "--json"], ["models"], ["--help"], ["--version"]]
)
def test_a_full_disk_under_standard_output_is_one_line(images: list[str], words: list[str]) -> None:
    done = command(*words, *images * ("infer" in words), redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"florence2: standard output can't be written: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-"])
def test_errors_that_nobody_can_read_change_nothing(images: list[str], redirect: str) -> None:
    done = command("infer", images[0], "gone.png", images[1], "--prompt", "<OD>", "--json", redirect=redirect)
    assert done.returncode == 1
    assert ["response" in json.loads(line) for line in done.stdout.splitlines()] == [True, False, True]
    assert command("infer", "gone.png", "--prompt", "<OD>", redirect=redirect).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(images: list[str], tmp_path: Path, redirect: str) -> None:
    done = command("infer", *images, "--prompt", "<OD>", "--draw", str(tmp_path / "out"), redirect=redirect)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if b"no font here has" not in line] == []  # not every machine has one for the label
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b-od.png", "c-od.png", "ä-od.png"]
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as drawing:
            drawing.load()  # and no answer was written into it


def test_a_path_is_printed_byte_for_byte(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xe9"
    os.mkdir(folder)
    (tmp_path / os.fsdecode(folder) / "config.json").write_text("{}")
    done = command("pull", os.fsdecode(folder))
    assert (done.stdout, done.returncode) == (folder + b"\n", 0)


def test_what_is_said_stays_short_and_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    report("florence2: " + "x" * 9000 + "\nthe end")
    told = capsys.readouterr().err
    assert told.startswith("florence2: xxx")
    assert told.endswith("xxx\\nthe end\n")
    assert len(told) == LONGEST_LINE + 1
    assert shown("a\x1b[2Jb\r\udcff\x85") == r"a\x1b[2Jb\r\xff\x85"
    assert shown("漢字　é🐱") == "漢字　é🐱"
