"""How good answers are: the metrics of the field, computed by the libraries that everybody uses for them.

In: records with the results that a model gave. Out: for each task a few metrics by name. Average precision and overlaps of masks come
from pycocotools, CIDEr and BLEU from pycocoevalcap, edit distances from rapidfuzz. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from florence2.datasets.record import Locations, Record, locations
from florence2.evaluation.overlaps import LabelledBox, box_overlaps, mask_overlap, match, sides
from florence2.results import Result
from florence2.tasks.table import TASKS

_COCO_LOCK = threading.Lock()  # over the modules of pycocotools while they must not print
MIN_OVERLAP = 0.5
FREE = "free prompts"

MEANINGS: dict[str, str] = {
    "ap": "COCO average precision, mean over IoU 0.50 to 0.95",
    "ap50": "COCO average precision at IoU 0.5",
    "recall": "things found: label right, IoU at least 0.5",
    "precision": "things that are right among those found",
    "accuracy": "places right at IoU 0.5, among those asked for or answered",
    "mean_iou": "mean IoU with what was asked for",
    "f1": "harmonic mean of recall and precision: text right, IoU at least 0.5",
    "exact": "answers that are exactly right, in their words",
    "region_iou": "mean IoU of the region behind a category or description with the one that is to stand there",
    "phrases": "answers that name exactly the right things, in any order",
    "cider": "CIDEr-D, 10 is the most",
    "bleu4": "BLEU with up to four words",
    "word_accuracy": "words read exactly, case included",
    "word_f1": "harmonic mean of words read exactly and words that are there among those read",
    "character_error": "edits per character, 0 is perfect",
}
"""What each figure means; all are 0 to 1 and better when higher, unless it is said."""


@dataclass(frozen=True)
class Metric:
    """One figure and the number of things that it was measured on."""

    value: float
    count: int


@dataclass(frozen=True)
class Answered:
    """A record and what a model made of it."""

    record: Record
    result: Result


Metrics = dict[str, dict[str, Metric]]


def compute_metrics(answers: Iterable[Answered]) -> Metrics:
    """Metrics by task and name; those of free prompts stand under ``FREE``.

    Needs the libraries of the extra ``evaluate``, see ``check_installed``.
    """
    by_task: dict[str, list[Answered]] = defaultdict(list)
    for answer in answers:
        by_task[answer.record.tag or FREE].append(answer)
    return {tag: METRICS_OF[tag](by_task[tag]) for tag in sorted(by_task, key=list(METRICS_OF).index)}


def metrics_as_dict(metrics: Metrics) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics as JSON has them, values rounded to four decimals."""
    return {
        tag: {name: {"value": round(metric.value, 4), "count": metric.count} for name, metric in named.items()}
        for tag, named in metrics.items()
    }


def check_installed() -> None:
    """Say at once what would be missing in the end.

    Raises:
        ModuleNotFoundError: one of the libraries is not installed.
    """
    for library in ("pycocoevalcap.cider.cider", "pycocotools.mask", "rapidfuzz.distance"):
        importlib.import_module(library)


def captions(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``exact``, ``phrases``, ``bleu4`` and ``cider``; CIDEr weighs words by how rare they are, so it needs two pictures at least."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    given = {index: [_words(_text(answer))] for index, answer in enumerate(answers)}
    wanted = {index: [_words(text) for text in _wanted_texts(answer)] for index, answer in enumerate(answers)}
    metrics = {
        **exact(answers),
        "phrases": _share([any(_phrases(_text(one)) == _phrases(text) for text in _wanted_texts(one)) for one in answers]),
    }
    bleu, _ = Bleu(4).compute_score(wanted, given, verbose=0)
    metrics["bleu4"] = Metric(float(bleu[3]), len(answers))
    if len(answers) > 1 and any(any(texts) for texts in wanted.values()):
        metrics["cider"] = Metric(float(Cider().compute_score(wanted, given)[0]), len(answers))
    return metrics


def exact(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``exact``."""
    return {"exact": _share([_text(answer) in _wanted_texts(answer) for answer in answers])}


def category(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``exact``, and ``region_iou`` where the right answers hold the region again."""
    return {**exact(answers), **_region_overlap(answers)}


def description(answers: Sequence[Answered]) -> dict[str, Metric]:
    """The metrics of captions, and ``region_iou`` where the right answers hold the region again."""
    return {**captions(answers), **_region_overlap(answers)}


def _region_overlap(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``region_iou``; an answer without a region of four numbers has none in common with the right one."""
    overlaps = []
    for answer in answers:
        wanted = [region for text in answer.record.answers if (region := _region_bins(text))]
        found = _region_bins(answer.result.text)
        if wanted:
            overlaps.append(float(box_overlaps(wanted, [found]).max()) if found else 0.0)
    return {"region_iou": _mean(overlaps)} if overlaps else {}


def reading(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``word_accuracy``, ``word_f1``, ``character_error`` and ``exact``, whatever white space stands between words."""
    from rapidfuzz.distance import Levenshtein

    hits = num_wanted = num_read = edits = num_characters = 0
    for answer in answers:
        wanted, read = answer.record.answers[0].split(), _text(answer).split()
        hits += sum((Counter(wanted) & Counter(read)).values())
        num_wanted, num_read = num_wanted + len(wanted), num_read + len(read)
        edits += Levenshtein.distance(" ".join(wanted), " ".join(read))
        num_characters += len(" ".join(wanted))
    metrics = {"word_f1": Metric(_f1(hits, num_wanted, num_read), num_wanted)}
    if num_characters:
        metrics["word_accuracy"] = Metric(hits / num_wanted, num_wanted)
        metrics["character_error"] = Metric(edits / num_characters, num_characters)
    return {**metrics, **exact(answers)}


def detection(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``ap``, ``ap50``, ``recall`` and ``precision``."""
    return {**average_precision(answers), **_found(answers, lambda found: found.boxes)}


def proposals(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``recall`` and ``precision``, whatever the labels."""
    return _found(answers, lambda found: found.boxes)


def printed(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``f1``, ``recall`` and ``precision`` of texts with their quads, by the boxes around these."""
    found = _found(answers, lambda found: [_around(quad) for quad in found.quads], name=str.strip)
    recall, precision = (found[name].value if name in found else 0.0 for name in ("recall", "precision"))
    total = sum(len(answer.record.truth.quads) for answer in answers)
    if not found:  # nothing was there, and nothing was found
        return {"f1": Metric(1.0, total)}
    return {"f1": Metric(2 * recall * precision / (recall + precision) if recall + precision else 0.0, total), **found}


def grounding(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``accuracy`` and ``mean_iou`` of boxes that phrases or classes were to get.

    A place too much counts like one that is missing; to find nothing where nothing is counts as one that is right. Where only one
    phrase was asked for, labels are not compared.
    """
    hits = total = 0
    overlaps: list[float] = []
    for answer in answers:
        wanted, found = _labelled(answer.record.truth), _labelled(locations(answer.result))
        if len({label for label, _ in wanted}) == 1:
            wanted, found = [("", box) for _, box in wanted], [("", box) for _, box in found]
        matched = match(wanted, found)
        hits += sum(overlap >= MIN_OVERLAP for overlap in matched) if wanted else not found
        total += max(len(wanted), len(found), 1)
        overlaps += matched
    return {"accuracy": Metric(hits / total, total), **({"mean_iou": _mean(overlaps)} if overlaps else {})}


def segmentation(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``mean_iou`` and ``accuracy`` of all outlines of an answer together."""
    overlaps = [mask_overlap(_outlines(one.record.truth), _outlines(locations(one.result)), one.record.size) for one in answers]
    return {"mean_iou": _mean(overlaps), "accuracy": _share([overlap >= MIN_OVERLAP for overlap in overlaps])}


METRICS_OF: Mapping[str, Callable[[Sequence[Answered]], dict[str, Metric]]] = {
    "<OD>": detection,
    "<DENSE_REGION_CAPTION>": detection,
    "<REGION_PROPOSAL>": proposals,
    "<CAPTION>": captions,
    "<DETAILED_CAPTION>": captions,
    "<MORE_DETAILED_CAPTION>": captions,
    "<CAPTION_TO_PHRASE_GROUNDING>": grounding,
    "<OPEN_VOCABULARY_DETECTION>": grounding,
    "<REFERRING_EXPRESSION_SEGMENTATION>": segmentation,
    "<REGION_TO_SEGMENTATION>": segmentation,
    "<REGION_TO_CATEGORY>": category,
    "<REGION_TO_DESCRIPTION>": description,
    "<OCR>": reading,
    "<OCR_WITH_REGION>": printed,
    "<REGION_TO_OCR>": reading,
    FREE: captions,
}
"""The metrics of each task, in the order in which they are shown; every task has some, and so have free prompts."""


def average_precision(answers: Sequence[Answered]) -> dict[str, Metric]:
    """``ap`` and ``ap50`` by COCO's evaluation: the mean over the records' classes, objects ranked by their scores, at most 100 a picture.

    What is found under a name that no record knows counts nowhere, as in COCO.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({_label(label) for answer in answers for label in answer.record.truth.labels})
    total = sum(len(answer.record.truth.boxes) for answer in answers)
    if not labels:
        return {}
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    truth: Any = COCO()  # its types do not say what it takes
    found: list[dict[str, Any]] = []
    images = [{"id": index, "width": one.record.size[0], "height": one.record.size[1]} for index, one in enumerate(answers, start=1)]
    annotations: list[dict[str, Any]] = []
    for index, answer in enumerate(answers, start=1):
        for name, box in _labelled(answer.record.truth):
            x, y, width, height = sides(box)
            entry = {"id": len(annotations) + 1, "image_id": index, "category_id": numbers[name], "bbox": [x, y, width, height]}
            annotations.append({**entry, "area": width * height, "iscrowd": 0})
        for name, box in answer.record.ignored:
            if (name := _label(name)) in numbers:
                entry = {"id": len(annotations) + 1, "image_id": index, "category_id": numbers[name], "bbox": sides(box)}
                annotations.append({**entry, "area": 1, "iscrowd": 1})
        scores = answer.result.scores or [1.0] * len(answer.result.labels)
        for (name, box), score in zip(_labelled(locations(answer.result)), scores, strict=True):
            if name in numbers:
                found.append({"image_id": index, "category_id": numbers[name], "bbox": sides(box), "score": score})
    truth.dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for name, n in numbers.items()],
    }
    if not found:
        return {"ap": Metric(0.0, total), "ap50": Metric(0.0, total)}
    with _silent_coco():
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {"ap": Metric(float(evaluator.stats[0]), total), "ap50": Metric(float(evaluator.stats[1]), total)}


@contextlib.contextmanager
def _silent_coco() -> Iterator[None]:
    """Let pycocotools print nothing; the standard output of the process, which belongs to all its threads, stays as it is."""
    modules = [importlib.import_module(f"pycocotools.{name}") for name in ("coco", "cocoeval")]
    with _COCO_LOCK:
        for module in modules:
            vars(module)["print"] = lambda *_, **__: None
        try:
            yield
        finally:
            for module in modules:
                del vars(module)["print"]


def _found(
    answers: Sequence[Answered], boxes: Callable[[Locations], Sequence[Sequence[float]]], name: Callable[[str], str] | None = None
) -> dict[str, Metric]:
    """``recall`` and ``precision``, each only if there is something to measure it on; ``name`` maps a label to the part to compare."""
    hits = num_wanted = num_found = 0
    for answer in answers:
        wanted, found = (
            list(zip(map(name or _label, location.labels), boxes(location), strict=True))
            for location in (answer.record.truth, locations(answer.result))
        )
        num_hits = _num_hits(wanted, found)
        hits, num_wanted = hits + num_hits, num_wanted + len(wanted)
        outside = _outside_crowds(found, answer.record.ignored)
        num_found += len(outside) + num_hits - _num_hits(wanted, outside)
    metrics = {}
    if num_wanted:
        metrics["recall"] = Metric(hits / num_wanted, num_wanted)
    if num_found:
        metrics["precision"] = Metric(hits / num_found, num_found)
    return metrics


def _num_hits(wanted: Sequence[LabelledBox], found: Sequence[LabelledBox]) -> int:
    return sum(overlap >= MIN_OVERLAP for overlap in match(wanted, found))


def _outside_crowds(found: Sequence[LabelledBox], crowds: Sequence[LabelledBox]) -> list[LabelledBox]:
    """What was found but for what lies by half or more in a crowd of its name."""
    shares = box_overlaps([box for _, box in crowds], [box for _, box in found], are_crowds=True)
    return [
        one
        for column, one in enumerate(found)
        if not any(_label(name) == one[0] and shares[row, column] >= MIN_OVERLAP for row, (name, _) in enumerate(crowds))
    ]


def _labelled(location: Locations) -> list[LabelledBox]:
    """Labels and boxes; outlines by the boxes around them."""
    if location.boxes:
        return list(zip(map(_label, location.labels), location.boxes, strict=True))
    corners = ([value for outline in outlines for value in outline] for outlines in location.polygons)
    return [(_label(label), _around(found)) for label, found in zip(location.labels, corners, strict=True) if len(found) >= 6]


def _outlines(location: Locations) -> list[Sequence[float]]:
    return [outline for outlines in location.polygons for outline in outlines]


def _label(label: str) -> str:
    """A label as it is compared."""
    return " ".join(label.casefold().split())


def _around(corners: Sequence[float]) -> tuple[float, ...]:
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])


def _text(answer: Answered) -> str:
    """The words of an answer."""
    return _without_region(answer.result.text, answer.record)


def _wanted_texts(answer: Answered) -> list[str]:
    """The words of the right answers."""
    return [_without_region(text, answer.record) for text in answer.record.answers]


def _without_region(text: str, record: Record) -> str:
    """A text without the region that published checkpoints write behind what they call it."""
    return text.removesuffix(_region(text)).strip() if record.tag in TASKS else text.strip()


def _region_bins(text: str) -> list[int]:
    """The four bins of a text's region, [] where there are not just four."""
    bins = [int(number) for number in re.findall(r"<loc_(\d+)>", _region(text))]
    return bins if len(bins) == 4 else []


def _region(text: str) -> str:
    """The location tokens from the first one on, "" without any."""
    _, token, rest = text.partition("<loc_")
    return token + rest


def _words(text: str) -> str:
    """Lower case, punctuation apart from words: what CIDEr and BLEU are counted on."""
    return " ".join("".join(character if character.isalnum() or character.isspace() else " " for character in text.lower()).split())


def _phrases(text: str) -> Counter[str]:
    """What a list names: "a red circle and a blue star" names a red circle and a blue star."""
    phrases = text.replace(" and ", ", ").split(", ")
    return Counter(phrase.strip().removeprefix("an ").removeprefix("a ") for phrase in phrases)


def _f1(hits: int, num_wanted: int, num_found: int) -> float:
    return 2 * hits / (num_wanted + num_found) if num_wanted + num_found else 1.0


def _mean(values: Sequence[float]) -> Metric:
    return Metric(float(np.mean(values)) if values else 0.0, len(values))


def _share(values: Sequence[bool]) -> Metric:
    return _mean([float(value) for value in values])
