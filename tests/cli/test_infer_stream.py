"""``florence2 infer --stream``: what is printed while an answer comes, in process and on terminals, pipes and interrupts of real ones."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from fixtures.fake_engine import FakeEngine
from florence2.answer_events import Event, ObjectFound, TokensDecided
from florence2.cli.infer.answers import Answer
from florence2.cli.infer.live import LiveJson, LiveLines, LivePrinter
from florence2.cli.infer.questions import Question
from florence2.cli.infer.streaming import stream_all
from florence2.errors import InvalidImage
from florence2.inputs.input import Input
from florence2.inputs.pictures import Picture
from florence2.results import FoundObject, Result
from tests.cli.test_infer import environment, records

CUT = "cut at the token limit"


def without_cuts(out: str) -> list[str]:
    """The lines of an output without the notes on answers that were cut."""
    return [line.removesuffix(f", {CUT}") for line in out.split("\n") if line.strip() != CUT]


@pytest.mark.slow
def test_what_is_printed_in_the_end_is_the_same(infer, images: list[str], tmp_path: Path) -> None:
    asked = [*images, "missing.png", "-t", "caption,ocr-with-region,od,region-to-ocr,dense-region-caption", "-r", "5,5,50,30", "--scores"]
    code, out, err = infer(*asked, "-D", tmp_path / "out", "--beams", 3)
    assert code == 1
    live = infer(*asked, "-D", tmp_path / "live", "--beams", 3, "--stream")
    assert (code, err, without_cuts(out.replace("/out/", "/live/"))) == (live[0], live[2], without_cuts(live[1]))
    assert len(list((tmp_path / "live").iterdir())) == 2 * 5
    assert without_cuts(infer(images[0], "-t", "caption")[1]) == without_cuts(infer(images[0], "-t", "caption", "--stream")[1])


def test_events_as_json_end_with_the_whole_answer(infer, images: list[str]) -> None:
    asked = [images[0], "missing.png", images[1], "-t", "caption,ocr-with-region,region-to-ocr", "-r", "5,5,500,300", "--json"]
    whole, lines = records(infer(*asked)[1]), records(infer(*asked, "--stream")[1])
    untimed = [{**line, "seconds": 0} for line in lines if "event" not in line]
    assert untimed == [{**line, "seconds": 0} for line in whole]
    for index in (0, 2):
        said = [line for line in lines if line.get("image_index") == index]
        assert {line["image"] for line in said} == {asked[index]}
        answer = next(line for line in whole if line["image"] == asked[index])
        assert "".join(line["text"] for line in said if line["prompt_index"] == 0) == answer["response"]["<CAPTION>"]
    places = [(line["image_index"], line["prompt_index"]) for line in lines if "event" in line]
    assert places == sorted(places)


def test_images_are_submitted_in_their_order_and_ahead() -> None:
    engine: Any = FakeEngine()
    readings: list[Future[Picture]] = [Future() for _ in range(20)]
    options = {"allow_unknown_tag": False}
    streamed = stream_all(engine, readings, [Question("<CAPTION>"), Question("<REGION_TO_OCR>", region=(0, 0, 5, 5))], options)
    contents = [Image.new("RGB", (4 if index == 1 else 10 + index, 10)) for index in range(20)]
    threading.Timer(0.2, lambda: readings[0].set_result(Picture(Input("0"), contents[0]))).start()
    for index, reading in enumerate(readings[1:], 1):
        reading.set_result(Picture(Input(str(index)), InvalidImage("none") if index == 2 else contents[index]))
    first = next(streamed)
    assert (first.image.name, len(first.answers)) == ("0", 2)
    outcomes = [[answer.answer().outcome for answer in one.answers] for one in [first, *streamed]]
    submitted = [picture.width for picture in engine.pictures]
    assert list(dict.fromkeys(submitted)) == [10, 4, *range(13, 30)]
    assert [type(outcome).__name__ for outcome in outcomes[1]] == ["Result", "InvalidRegion"]
    assert outcomes[2] == []
    assert [event.index for event in first.answers[1].events() if isinstance(event, TokensDecided)] == [1, 1, 1]


def test_an_engine_that_fails_in_the_middle_is_one_line(infer, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from florence2.model import Florence2

    step, left = Florence2.decode_step, iter(range(4))

    def failing(*given: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("broken")
        return step(*given, **options)

    monkeypatch.setattr(Florence2, "decode_step", failing)
    code, out, err = infer(images[0], "-t", "caption", "--stream")
    assert (code, len(err.splitlines()), "Traceback" in err) == (1, 1, False)
    assert out == "" or out.endswith("\n")


# What is written for given events


def printed(capsys: pytest.CaptureFixture[str], printer: LivePrinter, result: Result, *events: Event, prompt: str = "<CAPTION>") -> str:
    question = Question(prompt)
    answer: Any = SimpleNamespace(question=question, index=0, is_text=result.kind == "text")
    for event in events:
        printer.event(answer, event)
    printer.end(Answer(question, result, 0.5), None)
    return capsys.readouterr().out


def lines() -> LiveLines:
    return LiveLines(Input("a.png"), (60, 40), is_one=True)


def said(text: str) -> TokensDecided:
    return TokensDecided((1,), text, text)


def caption(text: str, **more: Any) -> Result:
    return Result("<CAPTION>", "text", (60, 40), text, text, **more)


def test_text_grows_in_its_lines_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\u98a8 \x1b[2Jdog\n\nand \U0001f436\r\u0301"
    for cut in (1, 2, 5, len(text)):
        pieces = [said(text[start : start + cut]) for start in range(0, len(text), cut)]
        out = printed(capsys, lines(), caption(text), said(""), *pieces)
        assert out == "a.png (60 x 40) <CAPTION>\n  a\u98a8 \\x1b[2Jdog\n  \n  and \U0001f436\\r\u0301\n"
    assert printed(capsys, lines(), caption("")) == "a.png (60 x 40) <CAPTION>\n  \n"
    out = printed(capsys, lines(), caption("a", finish_reason="length"), said("a"))
    assert out == f"a.png (60 x 40) <CAPTION>\n  a\n  {CUT}\n"


def test_objects_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (FoundObject(label, (1, 2, 3, 4)) for label in ("a\x07", ""))
    boxes = Result("<OD>", "boxes", (60, 40), "", "", boxes=[[1, 2, 3, 4]] * 2, labels=["a\x07", ""])
    wanted = "a.png (60 x 40) <OD>\n  a\\x07  [1, 2, 3, 4]\n  -  [1, 2, 3, 4]\n"
    for events in ([], [ObjectFound(one, [], 0)], [ObjectFound(one, [], 0), said("<loc_1>"), ObjectFound(two, [], 1)]):
        assert printed(capsys, lines(), boxes, *events, prompt="<OD>") == wanted
    nothing = Result("<OD>", "boxes", (60, 40), "", "")
    assert printed(capsys, lines(), nothing, prompt="<OD>") == "a.png (60 x 40) <OD>\n  nothing found\n"


def test_an_answer_that_reads_otherwise_as_a_whole_is_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    polygons = Result("<OD>", "boxes_or_polygons", (60, 40), "", "", polygons=[[[1, 2, 3, 4, 5, 6]]], labels=["a"])
    out = printed(capsys, lines(), polygons, ObjectFound(FoundObject("b", (1, 2, 3, 4)), [], 0), prompt="<OD>")
    assert out == "a.png (60 x 40) <OD>\n  b  [1, 2, 3, 4]\n  as a whole:\n  a  [[1, 2, 3, 4, 5, 6]]\n"


def test_objects_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        FoundObject("a", (1, 2, 9, 8), (1, 2, 9, 2, 9, 8, 1, 8), score=0.5),
        FoundObject("b", (1, 2, 5, 6), None, ((1, 2, 3, 4, 5, 6),)),
    ]
    printer = LiveJson(Input("a.png"), 3, (60, 40), "m")
    nothing = Result("<OD>", "boxes", (60, 40), "", "")
    events = [ObjectFound(one, [], index) for index, one in enumerate(found)]
    first, second, last = records(printed(capsys, printer, nothing, *events, prompt="<OD>"))
    place = {"image": "a.png", "prompt": "<OD>", "event": "object", "image_index": 3, "prompt_index": 0}
    assert first == {**place, "object_index": 0, "label": "a", "box": [1, 2, 9, 8], "quad": [1, 2, 9, 2, 9, 8, 1, 8], "score": 0.5}
    assert second == {**place, "object_index": 1, "label": "b", "box": [1, 2, 5, 6], "polygons": [[1, 2, 3, 4, 5, 6]]}
    assert last["response"] == {"<OD>": {"bboxes": [], "labels": []}}


# Real processes, with a model that takes its time


SLOWLY = """
import sys, time
from florence2.model import Florence2
step = Florence2.decode_step
def slow(*given, **options):
    time.sleep(0.05)
    return step(*given, **options)
Florence2.decode_step = slow
from florence2.cli import main
main(sys.argv[1:])
"""


def slowly(folder: Path, *words: object) -> list[str]:
    options = ["infer", "--model", folder, "--device", "cpu", "--beams", "1", "--max-new-tokens", "60", "-t", "ocr,caption", "--stream"]
    return [sys.executable, "-c", SLOWLY, *map(str, [*options, *words])]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_an_answer_leaves_a_clean_terminal(folder: Path, images: list[str]) -> None:
    with started(slowly(folder, *images)) as running:
        assert running.stdout is not None
        seen = b""
        while seen.count(b"\n") < 2 or seen.endswith(b"\n"):
            seen += os.read(running.stdout.fileno(), 4096)
        running.send_signal(signal.SIGINT)
        try:
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, b"Traceback" in err) == (130, False)
    assert (seen + out).endswith(b"\n")
    assert b"<CAPTION>" not in seen + out


@pytest.mark.slow
def test_a_reader_that_leaves_ends_it(folder: Path, images: list[str]) -> None:
    with started(slowly(folder, *images * 4, "--json")) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        running.stdout.close()
        try:
            assert running.wait(timeout=60) == 1
        finally:
            running.kill()
        assert running.stderr is not None
        assert running.stderr.read() == b""


@pytest.mark.slow
def test_a_terminal_has_the_answers_above_the_progress(folder: Path, images: list[str]) -> None:
    ours, theirs = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "florence2.cli",
        "infer",
        "-m",
        str(folder),
        "--beams",
        "1",
        "--max-new-tokens",
        "8",
        "-t",
        "ocr",
        "--stream",
    ]
    with subprocess.Popen([*words, *images * 4], stdout=theirs, stderr=theirs, env=environment()) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # all that wrote to it are gone
                break
        running.wait(timeout=60)
    os.close(ours)
    assert running.returncode == 0
    assert shown.count(b"<OCR>") == 8
    assert b"\x1b[?25h" in shown[shown.rindex(b"\x1b[?25l") :]  # the cursor is back
