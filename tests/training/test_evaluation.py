"""Measures: known answers give known figures."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from florence2.results import Result
from florence2.tasks import parse
from florence2.tasks.prompt import build_prompt
from florence2.training import evaluation
from florence2.training.evaluation import box_overlap, edit_distance, evaluate, mask_overlap, num_hits
from florence2.training.scenes import SceneOptions
from florence2.training.targets import make_targets

OPTIONS = SceneOptions(num_objects=(1, 3), num_words=(1, 2))


class Oracle:
    """An engine that answers with what a function makes of the true answer."""

    def __init__(self, change) -> None:
        self.change = change
        self.answers: dict[tuple[int, str], str] = {}

    def submit(self, image, prompt, **options) -> Future[Result]:
        text = self.change(self.answers[id(image), prompt])
        tag = build_prompt(prompt).tag or ""
        found = parse(tag, text, image.size)[tag]
        future: Future[Result] = Future()
        if isinstance(found, str):
            result = Result(task=tag, kind="text", image_size=image.size, text=found, raw=text)
        else:
            places = {"boxes": found.get("bboxes", []), "polygons": found.get("polygons", [])}
            kind = "polygons" if "polygons" in found else "boxes"
            result = Result(task=tag, kind=kind, image_size=image.size, text=text, raw=text, labels=found["labels"], **places)
        future.set_result(result)
        return future


def measured(monkeypatch, change):
    oracle = Oracle(change)

    def remember(scene, rng):
        targets = make_targets(scene, rng)
        for examples in targets.values():
            for example in examples:
                oracle.answers[id(scene.image), example.prompt] = example.answer
        return targets

    monkeypatch.setattr(evaluation, "make_targets", remember)
    return evaluate(oracle, num_scenes=12, seed=evaluation.FIRST_FREE_SEED, options=OPTIONS)  # type: ignore[arg-type]


def test_true_answers_score_one(monkeypatch):
    measures = measured(monkeypatch, lambda answer: answer)
    assert {name for name, measure in measures.items() if measure.value < 0.97} == set()
    assert len(measures) == 8


def test_empty_answers_score_nothing(monkeypatch):
    measures = measured(monkeypatch, lambda answer: "")
    assert all(measure.value == 0.0 for measure in measures.values())
    assert "od_precision" not in measures


def test_seeds_of_training_are_refused():
    with pytest.raises(ValueError, match="belong to training"):
        evaluate(None, num_scenes=1, seed=5, options=OPTIONS)  # type: ignore[arg-type]


def test_a_found_box_counts_once():
    wanted = [("a", [0, 0, 10, 10]), ("a", [0, 0, 10, 10])]
    assert num_hits(wanted, [("a", [0, 0, 10, 10])]) == 1
    assert num_hits(wanted, [("b", [0, 0, 10, 10])]) == 0
    assert num_hits(wanted, [("a", [0, 0, 10, 4])]) == 0


def test_overlaps_and_distances():
    assert box_overlap([0, 0, 10, 10], [0, 0, 10, 5]) == 0.5
    assert box_overlap([0, 0, 1, 1], [2, 2, 3, 3]) == 0.0
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    assert mask_overlap([square], [square], (64, 64)) == 1.0
    assert mask_overlap([square], [], (64, 64)) == 0.0
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
