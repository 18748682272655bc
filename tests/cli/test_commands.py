"""The command line in process: what it prints where, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from florence2 import __version__
from tests.cli.conftest import Cli


def test_json_is_one_line_per_image(infer, images: list[str]) -> None:
    code, out, err = infer(*images, "--prompt", "<OD>", "--json", "--scores")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [line["image"] for line in lines] == images
    for line in lines:
        assert set(line) == {"image", "prompt", "size", "model", "seconds", "finish_reason", "response"}
        answer = line["response"]["<OD>"]
        assert set(answer) == {"bboxes", "labels", "scores"}


def test_people_get_lines(infer, images: list[str]) -> None:
    code, out, _ = infer(images[0], "--prompt", "<CAPTION>", "--beams", 1, "--no-repeat-ngram-size", 0)
    assert code == 0
    first, second, *_ = out.split("\n")
    assert first.startswith(f"{images[0]} (60 x 40) <CAPTION>")
    assert second.startswith("  ")


def test_drawings_do_not_overwrite_each_other(infer, images: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert infer(*images, "--prompt", "<CAPTION>", "--draw", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["scene-caption-2.png", "scene-caption.png"]
    with Image.open(out / "scene-caption.png") as drawn:
        assert drawn.width == 64  # the strip of a text is at least eight letters wide
        assert drawn.height > 40
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert infer(images[0], "--prompt", "<CAPTION>", "--draw", out)[0] == 0  # another run
    assert infer(images[0], "--prompt", "<OD>", "--draw", out)[0] == 0
    assert sorted(path.name for path in out.iterdir() if path not in before) == ["scene-caption-3.png", "scene-od.png"]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["scene.png", "scene-od.png", "scene-od-2.png"])
def test_drawings_beside_their_images_leave_them_alone(infer, images: list[str], tmp_path: Path, monkeypatch, name: str) -> None:
    picture = tmp_path / name
    picture.write_bytes(Path(images[0]).read_bytes())
    (tmp_path / f"{picture.stem}-od.png").symlink_to(tmp_path / "elsewhere.png")  # what it would make is another file
    monkeypatch.chdir(tmp_path)
    code, out, err = infer(name, name, "--prompt", "<OD>", "--draw", ".", "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["drawing"] for line in out.splitlines()] == [f"{picture.stem}-od-2.png", f"{picture.stem}-od-3.png"]
    assert picture.read_bytes() == Path(images[0]).read_bytes()
    assert not (tmp_path / "elsewhere.png").exists()


def test_people_are_told_where_a_drawing_is(infer, images: list[str], tmp_path: Path) -> None:
    assert infer(images[0], "--prompt", "<OCR>", "--draw", tmp_path)[1].splitlines()[-1] == f"  drawn: {tmp_path / 'scene-ocr.png'}"


def test_a_drawing_of_a_free_prompt_and_a_long_name(infer, tmp_path: Path) -> None:
    long = tmp_path / f"{'é' * 125}.png"
    Image.new("RGB", (30, 20)).save(long)
    code, out, err = infer(long, "--prompt", "What / is ../here? " * 9, "--draw", tmp_path / "out", "--json")
    assert (code, err) == (0, "")
    drawing = Path(json.loads(out)["drawing"])
    assert drawing.parent == tmp_path / "out"
    assert drawing.is_file()
    assert drawing.name.endswith("-what-is-here-what-is-here-what-is-here-w.png")


def test_a_folder_that_cannot_be_written_costs_the_drawings_alone(infer, images: list[str]) -> None:
    code, out, err = infer(*images, "--prompt", "<OCR>", "--draw", "/proc", "--json")
    assert code == 1
    assert [json.loads(line)["image"] for line in out.splitlines()] == images
    assert all("response" in json.loads(line) and "drawing" not in json.loads(line) for line in out.splitlines())
    assert [line.split(": no drawing in /proc: ")[0] for line in err.splitlines()] == [f"florence2: {path}" for path in images]


def test_a_full_disk_costs_one_drawing_and_leaves_no_piece(infer, images: list[str], tmp_path: Path, monkeypatch) -> None:
    from florence2 import draw

    def too_much(image: Image.Image, result: object) -> Image.Image:
        canvas = image.copy()
        if image.getpixel((0, 0)) == first:

            def save(file: BinaryIO, _: str) -> None:
                file.write(b"a piece")
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(canvas, "save", save)
        return canvas

    with Image.open(images[0]) as picture:
        first = picture.convert("RGB").getpixel((0, 0))
    monkeypatch.setattr(draw, "annotate", too_much)
    code, out, err = infer(*images, "--prompt", "<OCR>", "--draw", tmp_path / "out", "--json")
    assert code == 1
    assert ["drawing" in json.loads(line) for line in out.splitlines()] == [False, True]
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_picture_that_can_be_read_once_is_drawn_on(infer, images: list[str], tmp_path: Path) -> None:
    ends = [os.pipe() for _ in range(2)]
    for _, write in ends:
        os.write(write, Path(images[0]).read_bytes())
        os.close(write)
    paths = [f"/dev/fd/{read}" for read, _ in ends]
    code, out, err = infer(paths[0], images[0], paths[1], "--prompt", "<OCR>", "--draw", tmp_path / "out", "--json")
    for read, _ in ends:
        os.close(read)
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert answers[0]["response"] == answers[1]["response"] == answers[2]["response"]
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_whatever_cannot_be_read_is_one_error_among_many(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    bad = [tmp_path / "loop.png", tmp_path / "folder.png", "/proc/self/mem", "/dev/null", "x" * 300, tmp_path / "two\nlines.png"]
    code, out, err = infer(images[0], *bad, images[1], "--prompt", "<OCR>", "--json")
    assert code == 1
    assert ["response" in json.loads(line) for line in out.splitlines()] == [True, *[False] * len(bad), True]
    assert len(err.splitlines()) == len(bad)
    assert all(len(line) <= 500 for line in err.splitlines())


def test_an_image_that_is_too_large_for_the_memory_is_one_error(infer, images: list[str], monkeypatch) -> None:
    from florence2 import images as pictures

    read = pictures.read_image

    def short_of_memory(path: Path) -> Image.Image:
        if path == Path(images[0]):
            raise MemoryError
        return read(path)

    monkeypatch.setattr(pictures, "read_image", short_of_memory)
    code, out, err = infer(*images, "--prompt", "<OCR>", "--json")
    assert code == 1
    assert ["response" in json.loads(line) for line in out.splitlines()] == [False, True]
    assert err == f"florence2: {images[0]} can't be read: out of memory\n"


def test_names_that_are_no_utf8_and_names_that_speak_to_terminals(infer, images: list[str], tmp_path: Path) -> None:
    names = [os.fsencode(tmp_path) + b"/" + name for name in (b"\xff.png", b"a\nb.png", b"\x1b[31m.png", b"\xe9\xa2\xa8.png")]
    for name in names:
        shutil.copy(images[0], os.fsdecode(name))
    paths = [os.fsdecode(name) for name in names]
    code, out, _ = infer(*paths, "--prompt", "<OCR>", "--json")
    assert code == 0
    assert [os.fsencode(json.loads(line)["image"]) for line in out.splitlines()] == names
    code, out, _ = infer(*paths, "--prompt", "<OD>", "--draw", tmp_path / "out")
    assert code == 0
    shown = [line.removeprefix(f"{tmp_path}/").split(" (")[0] for line in out.splitlines() if line.startswith(str(tmp_path))]
    assert shown == [r"\xff.png", r"a\nb.png", r"\x1b[31m.png", "風.png"]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_one_bad_image_does_not_stop_the_others(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code, out, err = infer(images[0], tmp_path / "bad.png", "missing.png", images[1], "--prompt", "<OCR>", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert ["response" in line for line in lines] == [True, False, False, True]
    assert [set(line) for line in lines if "error" in line] == [{"image", "prompt", "model", "error"}] * 2
    assert lines[1]["error"]["code"] == "invalid_image"
    assert len(err.splitlines()) == 2
    assert "bad.png" in err
    assert "missing.png" in err


def test_many_images_keep_their_order(infer, images: list[str]) -> None:
    many = images * 10
    code, out, _ = infer(*many, "--prompt", "<OCR>", "--json", "--beams", 1)
    assert code == 0
    assert [json.loads(line)["image"] for line in out.splitlines()] == many


def test_a_region_that_one_image_is_too_small_for(infer, images: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    code, out, err = infer(tmp_path / "small.png", images[0], "--prompt", "<REGION_TO_OCR>", "--region", "5,5,50,30.5", "--json")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "small.png" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "<ODD>"], "<OD>"),
        (["--prompt", "<CAPTION_TO_PHRASE_GROUNDING>"], "needs a text"),
        (["--prompt", "<REGION_TO_OCR>", "--region", "1,2,3"], "x1,y1,x2,y2"),
        (["--prompt", "<OD>", "--beams", "99"], "--beams"),
        (["--prompt", "<OD>", "--precision", "int3"], "fp32"),
        (["--prompt", "<OD>", "--device", "gpu"], "cuda"),
        (["--prompt", "<OD>", "--model", "florence-9"], "florence-2-base"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(infer, images: list[str], arguments: list[str], said: str) -> None:
    code, out, err = infer(images[0], *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("florence2: ")
    assert said in err


def test_a_single_missing_image_is_a_mistake(infer) -> None:
    code, _, err = infer("missing.png", "--prompt", "<OD>")
    assert code == 2
    assert "there is no file" in err


def test_usage_errors(cli: Cli, images: list[str]) -> None:
    assert cli("infer", images[0])[0] == 2
    assert cli("infer", "--prompt", "<OD>")[0] == 2
    assert cli("infre")[0] == 2


def test_a_damaged_checkpoint_is_not_the_users_mistake(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    code, _, err = infer(images[0], "--prompt", "<OD>", "--model", tmp_path)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "config.json" in err


def test_an_output_folder_that_cannot_be(infer, images: list[str]) -> None:
    code, _, err = infer(images[0], "--prompt", "<OD>", "--draw", Path(images[0]) / "out")
    assert code == 2
    assert "can't be made" in err


def test_models_lists_the_aliases(cli: Cli) -> None:
    code, out, _ = cli("models")
    assert code == 0
    for alias in ("florence-2-demo", "florence-2-base", "florence-2-large", "florence-2-base-ft", "florence-2-large-ft"):
        assert alias in out


def test_models_has_short_lines_on_a_narrow_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("florence2.cli.models.is_interactive", lambda _: True)
    lines = cli("models")[1].splitlines()
    assert lines[2:4] == ["florence-2-base (231 M, ~462 MB)", "  pretrained"]
    assert "florence-community/Florence-2-base" not in "".join(lines)
    assert "  florence-community/Florence-2-base" in cli("models", "-v")[1].splitlines()


def test_models_says_what_is_here(cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    storage = tmp_path / "models--florence-community--Florence-2-base"
    shutil.copytree(folder, storage / "snapshots" / ("a" * 40))
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("a" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    megabytes = round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6)
    lines = {line.split()[0]: line for line in cli("models")[1].splitlines() if line.startswith("florence")}
    assert re.search(rf" 231 M +{megabytes} MB +yes ", lines["florence-2-base"])
    assert re.search(r" 770 M +~1540 MB +no ", lines["florence-2-large"])
    assert re.search(r" 1\d MB +yes +small, comes with the package.* this package$", lines["florence-2-demo"])
    assert str(tmp_path) not in "".join(lines.values())
    assert str(storage / "snapshots" / ("a" * 40)) in cli("models", "-v")[1]
    found = {one["alias"]: one for one in map(json.loads, cli("models", "--json")[1].splitlines())}
    assert {name: one["here"] for name, one in found.items()} == {name: name in ("florence-2-base", "florence-2-demo") for name in found}
    assert found["florence-2-base"]["path"] == str(storage / "snapshots" / ("a" * 40))
    assert (found["florence-2-large"]["path"], found["florence-2-large"]["size_mb"]) == (None, 1540)


def test_pull_prints_the_folder(cli: Cli, folder: Path) -> None:
    assert cli("pull", folder) == (0, f"{folder}\n", "")
    assert cli("pull", "nowhere-at-all")[0] == 2


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"florence2 {__version__}\n", "")


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys; from florence2.cli import main\n"
        "try: main(['infer', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'tokenizers', 'huggingface_hub', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--no-repeat-ngram-size" in done.stdout


@pytest.mark.parametrize(("words", "is_own"), [("", True), ("['--version']", False)], ids=["the process's own command", "a call"])
def test_a_process_of_one_command_seldom_collects_garbage(words: str, is_own: bool) -> None:
    script = (
        "import atexit, gc, sys; from florence2.cli import main\n"
        "sys.argv[1:] = ['--version']\n"
        "before = gc.get_threshold()\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000))\n"  # runs after what was registered later
        f"try: main({words})\n"
        "except SystemExit: print(gc.get_threshold() != before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1:] == [str(is_own)] * 2


def test_a_missing_extra_is_named(images: list[str]) -> None:
    script = f"import sys; sys.modules['torch'] = None; from florence2.cli import main; main(['infer', {images[0]!r}, '--prompt', '<OD>'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'florence2-engine[engine]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--prompt", ""], "--prompt"),
        (["--prompt", " \n"], "--prompt"),
        (["--prompt="], "--prompt"),
        (["--prompt", "<OD>", "--draw", ""], "--draw"),
        (["--prompt", "<OD>", "--model", ""], "--model"),
        (["", "--prompt", "<OD>"], "an argument"),
    ],
)
def test_an_empty_argument_is_refused(cli: Cli, images: list[str], arguments: list[str], name: str) -> None:
    code, out, err = cli("infer", images[0], *arguments)
    assert (code, out) == (2, "")
    assert err == f"florence2: {name} is empty; is a variable of the shell not set?\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "<OD>", "--beams", "99"], "--beams must be"),
        (["--prompt", "<OD>", "--max-new-tokens", "0"], "--max-new-tokens must be"),
        (["--prompt", "<OD>", "--no-repeat-ngram-size", "-1"], "--no-repeat-ngram-size must be"),
        (["--prompt", "<REGION_TO_OCR>"], "--region x1,y1,x2,y2"),
    ],
)
def test_messages_call_options_as_the_command_line_does(infer, images: list[str], arguments: list[str], said: str) -> None:
    code, _, err = infer(images[0], *arguments)
    assert code == 2
    assert said in err
    assert "_" not in err.replace("REGION_TO_OCR", "").replace("loc_", "")


def test_a_folder_that_is_gone_is_one_line(images: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    words = [sys.executable, "-m", "florence2.cli", "infer", "a.png", "--prompt", "<OD>"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        ["bash", "-c", script, str(tmp_path / "gone"), *words], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "florence2: the current folder is gone; change to one that is there\n"
