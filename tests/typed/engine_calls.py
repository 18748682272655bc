# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A program of a user of the engine: what an editor knows of each result. Checked by test_types.py, never run."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, assert_type

from PIL import Image

import florence2
from florence2 import Engine, Florence2Error, Result
from florence2.answer_events import ObjectFound, TokensDecided
from florence2.evaluation import Answered, Evaluation, Metric, evaluate
from florence2.results import FoundObject
from florence2.tasks import TASKS, Task, expand_prompt, parse_prompt
from florence2.tasks.tokenized_prompt import TokenizedPrompt
from florence2.weights import ALIASES, Alias, resolve


def evaluating(engine: Engine) -> None:
    found = evaluate("set.jsonl", model=engine, tags=["<OD>"], limit=5, on_message=print)
    assert_type(found, Evaluation)
    assert_type(found.metrics, dict[str, dict[str, Metric]])
    assert_type(found.metrics["<OD>"]["ap"].value, float)
    assert_type(found.answers, tuple[Answered, ...])
    assert_type(found.answers[0].result, Result)
    assert_type(found.path, Path | None)
    assert_type(florence2.evaluation.evaluate(Path("set"), model="florence-2-base", skip_bad=True), Evaluation)


def asking(picture: Image.Image) -> None:
    engine = florence2.load("florence-2-demo", precision="fp32", adapters=[Path("mine")])
    assert_type(engine, Engine)
    assert_type(engine.run("a.jpg", "<OD>"), Result)
    assert_type(engine.run(picture, "<REGION_TO_OCR>", region=(1, 2, 3, 4), num_beams=1, scores=True), florence2.Result)
    assert_type(engine.run_many(b"", ["<OD>", "<CAPTION>"], max_new_tokens=5), list[Result])
    assert_type(engine.submit(Path("a.jpg"), "<OD>"), Future[Result])
    assert_type(engine.submit("a.jpg", "<OD>").result(), Result)
    assert_type(engine.submit_many("a.jpg", ("<OD>",)), list[Future[Result]])
    assert_type(engine.prepare("<OD>"), TokenizedPrompt)
    assert_type(engine.run("a.jpg", engine.prepare("<REGION_TO_OCR>", region=(1, 2, 3, 4))), Result)
    assert_type(engine.run("a.jpg", parse_prompt("<OD>")), Result)
    assert_type(engine.num_beams, int)
    assert_type(engine.max_answer_tokens, int)
    assert_type(engine.max_prompt_tokens, int)
    assert_type(engine.precision, str)
    assert_type(engine.tokenizer, florence2.Tokenizer)
    with florence2.load() as same:
        assert_type(same, Engine)
    engine.close(cancel=True)


def listening(engine: Engine) -> None:
    for event in engine.stream("a.jpg", "<OD>", num_beams=1):
        if isinstance(event, Result):
            assert_type(event.labels, list[str])
        elif isinstance(event, ObjectFound):
            assert_type(event.object, FoundObject)
        else:
            assert_type(event, TokensDecided)
            assert_type(event.token_ids, tuple[int, ...])
            assert_type(event.text, str)
    with engine.stream("a.jpg", "<OCR>") as stream:
        assert_type(next(stream), TokensDecided | ObjectFound | Result)
    assert_type(engine.submit("a.jpg", "<OD>", on_event=lambda event: print(event.index)), Future[Result])
    assert_type(engine.submit_many("a.jpg", ["<OD>"], on_event=lambda event: print(event.index)), list[Future[Result]])


def reading(result: Result) -> None:
    assert_type(result.task, str)
    assert_type(result.kind, Literal["text", "boxes", "quads", "polygons", "boxes_or_polygons"])
    assert_type(result.finish_reason, Literal["stop", "length"])
    assert_type(result.image_size, tuple[int, int])
    assert_type(result.boxes, list[list[int]])
    assert_type(result.polygons, list[list[list[int]]])
    assert_type(result.scores, list[float] | None)
    assert_type(result.label_scores, list[float | None] | None)
    assert_type(result.objects, tuple[FoundObject, ...])
    assert_type([found.label for found in result.objects], list[str])
    assert_type(result.objects[0].kind, Literal["box", "quad", "polygons"])
    assert_type(result.objects[0].box, tuple[float, float, float, float])
    assert_type(result.objects[0].polygons, tuple[tuple[float, ...], ...])
    assert_type(result.objects[0].score, float | None)
    assert_type(result.to_dict(coordinates="float"), dict[str, Any])
    assert_type(result.draw(), Image.Image)
    assert_type(result.annotate(), Image.Image)
    assert_type(result.to_coco(classes={"cat": 3})["annotations"], Any)
    assert_type(florence2.draw.annotate(Image.new("RGB", result.image_size), result), Image.Image)


def beside_it() -> None:
    assert_type(florence2.__version__, str)
    assert_type(florence2.parse("<OD>", "cat<loc_1><loc_2><loc_3><loc_4>", (10, 10)), dict[str, Any])
    assert_type(florence2.Tokenizer.load("folder").encode("a"), list[int])
    assert_type(expand_prompt("<OD>"), str)
    assert_type(TASKS, dict[str, Task])
    assert_type(ALIASES, dict[str, Alias])
    assert_type(resolve("florence-2-demo"), Path)
    assert_type(florence2.weights.resolve("florence-2-demo"), Path)
    try:
        florence2.load("nowhere")
    except florence2.errors.ModelNotFound as error:
        assert_type(error.message, str)
        assert_type(error.field, str | None)
    except Florence2Error as error:
        assert_type(error.code, str)
        assert_type(error.status, int)


def mistakes_are_seen(engine: Engine) -> None:
    print(florence2.Enginee)  # type: ignore
    print(florence2.weights.resolved)  # type: ignore
    florence2.load(precision=32)  # type: ignore
    engine.run("a.jpg", "<OD>", beams=1)  # type: ignore
    engine.run("a.jpg", "<OD>", on_event=print)  # type: ignore
    engine.run("a.jpg", ["<OD>"])  # type: ignore
    print(engine.run("a.jpg", "<OD>")["<OD>"])  # type: ignore
    engine.run("a.jpg", "<OD>").objects[0].label = "cat"  # type: ignore
    print(engine.run_many("a.jpg", ["<OD>"]).labels)  # type: ignore
