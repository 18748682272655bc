"""``florence2 infer`` with several questions, images of every origin, progress, and mistakes that are told before a model is loaded."""

from __future__ import annotations

import functools
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from florence2.cli.infer.command import task_names
from florence2.tasks import TASKS

SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.fixture
def host(images: list[str]) -> Iterator[str]:
    """A host of pictures on loopback."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    folder = str(Path(images[0]).parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_line_has_all_that_a_program_needs(infer, images: list[str], folder: Path, tmp_path: Path) -> None:
    code, out, err = infer(images[0], "-t", "open-vocabulary-detection", "--text", "a dog", "-j", "-D", tmp_path / "out")
    (line,) = records(out)
    assert (code, err) == (0, "")
    assert list(line) == ["image", "prompt", "text", "size", "model", "seconds", "finish_reason", "response", "drawing"]
    assert (line["image"], line["model"], line["size"]) == (images[0], str(folder), [60, 40])
    assert (line["prompt"], line["text"]) == ("<OPEN_VOCABULARY_DETECTION>", "a dog")
    assert 0 < line["seconds"] < 60
    assert line["finish_reason"] in ("stop", "length")
    assert list(line["response"]) == ["<OPEN_VOCABULARY_DETECTION>"]
    assert line["drawing"] == str(tmp_path / "out" / "scene-open-vocabulary-detection.png")


def test_an_answer_that_was_cut_says_so(infer, images: list[str]) -> None:
    code, out, _ = infer(images[0], "-t", "caption", "-j", "--max-new-tokens", 2)
    assert (code, records(out)[0]["finish_reason"]) == (0, "length")


def test_several_questions_are_answered_in_their_order_with_one_encoding(infer, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from florence2.model import Florence2

    encoded = []
    encode = Florence2.encode_image
    monkeypatch.setattr(Florence2, "encode_image", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels))
    asked = ["-t", "od", "-p", "<CAPTION>", "-t", "region-to-ocr", "-r", "0,0,20,20", "-p", "ocr", "--region", "1,1,5,5"]
    code, out, err = infer(*asked, *images, "--json")
    assert (code, err) == (0, "")
    lines = records(out)
    prompts = ["<OD>", "<CAPTION>", "<REGION_TO_OCR>", "<REGION_TO_OCR>", "<OCR>"]
    assert [(line["image"], line["prompt"]) for line in lines] == [(image, prompt) for image in images for prompt in prompts]
    assert [line["region"] for line in lines if "region" in line] == [[0, 0, 20, 20], [1, 1, 5, 5]] * 2
    assert sum(encoded) == len(images)


def test_people_see_the_answers_below_their_image(infer, images: list[str], tmp_path: Path) -> None:
    code, out, _ = infer(*images, "-t", "ocr,region-to-ocr", "-r", "0,0,9,9", "-D", tmp_path)
    assert code == 0
    lines = out.split("\n")
    assert [line for line in lines if line and not line.startswith("    ")] == [
        *(f"{images[0]} (60 x 40)", "  <OCR>, cut at the token limit", "  <REGION_TO_OCR> 0,0,9,9, cut at the token limit"),
        *(f"{images[1]} (60 x 40)", "  <OCR>, cut at the token limit", "  <REGION_TO_OCR> 0,0,9,9, cut at the token limit"),
    ]
    assert f"    drawn: {tmp_path / 'scene-region-to-ocr-2.png'}" in lines


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["OD", "od", "<OD", "<od>", "&lt;OD&gt;"])
def test_a_tag_without_its_brackets_is_the_tag(infer, images: list[str], prompt: str) -> None:
    code, out, _ = infer(images[0], "--prompt", prompt, "--json")
    assert (code, records(out)[0]["prompt"]) == (0, "<OD>")
    code, out, _ = infer(images[0], "--prompt", prompt, "--json", "--allow-unknown-tag")
    assert (code, records(out)[0]["prompt"], list(records(out)[0]["response"])) == (0, prompt, [prompt.split(">")[0] + ">"])


def test_a_region_outside_of_one_image_leaves_its_other_answers(infer, images: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    code, out, err = infer(tmp_path / "small.png", images[0], "-t", "od,region-to-ocr", "-r", "5,5,50,30", "-j")
    lines = records(out)
    assert code == 1
    assert ["response" in line for line in lines] == [True, False, True, True]
    assert lines[1]["error"]["code"] == "invalid_region"
    assert (lines[1]["size"], lines[1]["region"]) == ([10, 10], [5, 5, 50, 30])
    assert len(err.splitlines()) == 1
    assert "small.png" in err


def test_an_image_that_is_none_has_a_line_for_each_question_and_is_told_once(infer, images: list[str]) -> None:
    code, out, err = infer(images[0], "missing.png", "-t", "od,caption", "-j")
    assert code == 1
    assert [(line["prompt"], "error" in line) for line in records(out)[2:]] == [("<OD>", True), ("<CAPTION>", True)]
    assert len(err.splitlines()) == 1


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "words",
    [
        ["missing.png"],
        ["missing.png", "gone.png", "-j"],
        ["no/*.png"],
        ["FOLDER"],
        ["notes.txt"],
        ["s3://bucket/a.png"],
        ["http://127.0.0.1:9/a.png"],  # told by its being fetched
        ["data:,words"],
        ["broken.png"],  # told by its being decoded
        ["--list", "missing.txt"],
        [],
        ["scene.png", "-t", "ods"],
        ["scene.png", "--text", "a"],
        ["scene.png", "-r", "1,2"],
        ["scene.png", "--beams", "99"],
        ["scene.png", "--max-new-tokens", "0"],
        ["scene.png", "--nothing"],
        ["scene.png", "-D", "notes.txt/out"],
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(infer, images: list[str], tmp_path: Path, monkeypatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    Path("notes.txt").write_text("words")
    Path("scene.png").write_bytes(Path(images[0]).read_bytes())
    Path("broken.png").write_bytes(Path(images[0]).read_bytes()[:300])
    code, out, err = infer(*words, "-t", "od")
    assert code == 2
    assert all("error" in line for line in records(out))
    assert all(line.startswith("florence2: ") for line in err.splitlines())
    assert len(err.splitlines()) == max(1, sum(".png" in word for word in words if "missing" in word or "gone" in word))


def test_what_is_wrong_with_some_images_is_told_at_once(infer, images: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from florence2.engine import engine

    told = []
    load = engine.load
    monkeypatch.setattr(engine, "load", lambda *given, **options: told.append(capsys.readouterr().err) or load(*given, **options))
    assert infer(images[0], "missing.png", images[1], "-t", "od")[0] == 1
    assert told[0].startswith("florence2: there is no file 'missing.png'")


def test_urls(infer, host: str, tmp_path: Path) -> None:
    url = f"http://me:secret@{host}/scene.png?key=secret"
    code, out, err = infer(url, "-t", "caption", "-j", "-D", tmp_path / "out")
    (line,) = records(out)
    assert (code, err) == (0, "")
    assert (line["image"], line["size"], line["drawing"]) == (url, [60, 40], str(tmp_path / "out" / "scene-caption.png"))
    code, out, err = infer(url, f"http://me:secret@{host}/none.png?key=secret", "-t", "caption")
    assert code == 1
    assert out.startswith(f"http://{host}/scene.png (60 x 40) <CAPTION>")
    assert err.startswith(f"florence2: http://{host}/none.png can't be fetched: ")
    assert "secret" not in out + err


def test_a_picture_by_pipe_and_a_list_by_pipe(infer, images: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(images[0]).read_bytes())))
    code, out, err = infer("-", "-t", "ocr", "-j", "-D", tmp_path / "out")
    assert (code, err, records(out)[0]["image"]) == (0, "", "-")
    assert records(out)[0]["drawing"] == str(tmp_path / "out" / "stdin-ocr.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\0".join(images).encode())))
    code, out, err = infer("--list", "-", "-t", "ocr", "-j")
    assert (code, err, [line["image"] for line in records(out)]) == (0, "", images)


def test_a_folder(infer, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "a" / "notes.txt").write_text("words")
    code, out, err = infer(tmp_path / "a", "-t", "ocr", "-j")
    assert (code, [line["image"] for line in records(out)]) == (0, [images[0]])
    assert err == f"florence2: {tmp_path / 'a'}: left out 1 file that is no picture\n"
    assert infer(tmp_path / "a", "-t", "ocr", "-j", "-q")[2] == ""


def test_a_prompt_that_is_too_long_for_the_model_is_a_mistake_of_the_command(infer, images: list[str]) -> None:
    code, out, err = infer(*images, "-t", "caption-to-phrase-grounding", "--text", "dog " * 5000)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_help_lists_tasks_and_examples(cli) -> None:
    code, out, _ = cli("infer", "--help")
    assert code == 0
    for task in TASKS.values():
        assert any(line.split()[:1] == [task.name] and (not task.needs or f"--{task.needs}" in line) for line in out.splitlines()), task
    assert "florence2 infer photo.jpg -m florence-2-base -t caption" in out
    assert "car<and>dog" in out


def test_the_shell_completes_tasks() -> None:
    assert [name for name, _ in task_names("ocr")] == ["ocr", "ocr-with-region"]
    assert [name for name, _ in task_names("OCR_W")] == ["ocr-with-region"]
    assert len(task_names("")) == len(TASKS)


def program(folder: Path, *words: object) -> list[str]:
    options = ["--model", folder, "--device", "cpu", "--beams", "1", "--max-new-tokens", "5", "-t", "ocr"]
    return [sys.executable, "-m", "florence2.cli", "infer", *map(str, [*options, *words])]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "TERM": "xterm"}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupt", "more"])
def test_an_answer_is_there_before_the_next_image_is(folder: Path, images: list[str], tmp_path: Path, end: str) -> None:
    os.mkfifo(tmp_path / "camera")
    words = program(folder, images[0], tmp_path / "camera", "-j")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["image"] == images[0]
        if end == "interrupt":
            running.send_signal(signal.SIGINT)
        else:
            (tmp_path / "camera").write_bytes(Path(images[1]).read_bytes())
        try:
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()  # or leaving the block would wait for it for ever
    if end == "interrupt":
        assert (running.returncode, out) == (130, b"")
        assert b"Traceback" not in err
    else:
        assert (running.returncode, err) == (0, b"")
        assert json.loads(out)["image"] == str(tmp_path / "camera")


@pytest.mark.slow
def test_a_terminal_shows_progress_below_the_answers(folder: Path, images: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(program(folder, *images * 4), stdout=theirs, stderr=theirs, env=environment()) as running:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # all that wrote to it are gone
                break
        running.wait(timeout=60)
    os.close(ours)
    assert running.returncode == 0
    assert b"/8" in shown
    assert b"images" in shown
    assert shown.count(b"<OCR>") == 8
    assert shown.endswith(b"\x1b[?25h") or b"\x1b[?25h" in shown[shown.rindex(b"\x1b[?25l") :]  # the cursor is back
