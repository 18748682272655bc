"""Whether faster-coco-eval counts what pycocotools counts, to the last digit, and how long each takes.

Both are asked about the same answers: those of ``florence-2-demo`` about scenes that it was not trained on, and random boxes with crowds,
ties between scores, pictures without anything in them, more than 100 answers a picture and boxes without an area.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask

import florence2
from benchmarks import report
from florence2.data_sources import read_source
from florence2.evaluation.answers import answer_all
from florence2.evaluation.metrics import compute_metrics
from florence2.scenes.synthetic import FIRST_FREE_SEED

LIBRARIES: dict[str, Any] = {
    "pycocotools": SimpleNamespace(
        coco=pycocotools.coco, mask=pycocotools.mask, cocoeval=SimpleNamespace(COCOeval=pycocotools.cocoeval.COCOeval)
    ),
    "faster-coco-eval": SimpleNamespace(
        coco=faster_coco_eval.coco, mask=faster_coco_eval.mask, cocoeval=SimpleNamespace(COCOeval=faster_coco_eval.COCOeval_faster)
    ),
}
SEED = FIRST_FREE_SEED + 2311
PLACES = "OD,DENSE_REGION_CAPTION,REGION_PROPOSAL,CAPTION_TO_PHRASE_GROUNDING,REFERRING_EXPRESSION_SEGMENTATION,REGION_TO_SEGMENTATION"


@contextlib.contextmanager
def counting_by(library: Any) -> Iterator[None]:
    """Our measures with another library below them."""
    modules = {f"pycocotools.{name}": value for name, value in vars(library).items()} | {"pycocotools": library}
    with mock.patch.dict(sys.modules, modules):
        yield


def demo_figures(scenes: int) -> dict[str, Any]:
    """Where the figures of the demo's answers differ."""
    records = read_source(f"synthetic:{scenes}?seed={SEED}&tasks={PLACES}", for_training=False).sound()
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as engine:
        answers = list(answer_all(engine, records, num_beams=1))
    by_library = {}
    for name, library in LIBRARIES.items():
        with counting_by(library):
            by_library[name] = {
                f"{tag} {one}": value.value for tag, named in compute_metrics(answers).items() for one, value in named.items()
            }
    theirs, ours = by_library["faster-coco-eval"], by_library["pycocotools"]
    return {
        "figures": len(ours),
        "equal_to_the_last_bit": sum(theirs[name] == ours[name] for name in ours),
        "equal_in_four_decimals": sum(round(theirs[name], 4) == round(ours[name], 4) for name in ours),
        "differ": {name: abs(theirs[name] - ours[name]) for name in ours if theirs[name] != ours[name]},
    }


def random_figures(sets: int) -> dict[str, Any]:
    """How often, and by how much, COCO's twelve figures of random boxes differ."""
    seconds = dict.fromkeys(LIBRARIES, 0.0)
    differences, recalls, decimals = [], [], []
    for seed in range(sets):
        truth, found = random_set(np.random.default_rng(seed))
        counted = {}
        for name, library in LIBRARIES.items():
            began = time.perf_counter()
            counted[name] = coco_evaluation(library, truth, found)
            seconds[name] += time.perf_counter() - began
        (ours, our_recall), (theirs, their_recall) = counted["pycocotools"], counted["faster-coco-eval"]
        differences.append(float(np.abs(ours - theirs).max()))
        recalls.append(np.array_equal(our_recall, their_recall))
        decimals.append(np.array_equal(ours.round(4), theirs.round(4)))
    return {
        "sets": sets,
        "equal_to_the_last_bit": sum(difference == 0 for difference in differences),
        "recall_equal_to_the_last_bit": sum(recalls),
        "equal_in_four_decimals": sum(decimals),
        "largest_difference": max(differences),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def coco_evaluation(library: Any, truth: dict[str, Any], found: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """COCO's twelve figures, and recall by threshold, class, area and number of answers."""
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = library.coco.COCO()
        wanted.dataset = copy.deepcopy(truth)
        wanted.createIndex()
        evaluator = library.cocoeval.COCOeval(wanted, wanted.loadRes(copy.deepcopy(found)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.array(evaluator.stats[:12]), np.array(evaluator.eval["recall"])


def random_set(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pictures with boxes of some classes, and answers about them, some of them nearly right."""
    num_classes, size = int(rng.integers(1, 6)), rng.integers(20, 800, 2)
    pictures = [{"id": number, "width": int(size[0]), "height": int(size[1])} for number in range(1, int(rng.integers(2, 12)))]
    wanted: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for picture in pictures:
        for _ in range(int(rng.choice([0, 1, 4, 12]))):
            box, crowd = random_box(rng, size), int(rng.random() < 0.15)
            place = {"image_id": picture["id"], "category_id": int(rng.integers(1, num_classes + 1)), "bbox": box}
            wanted.append({**place, "id": len(wanted) + 1, "area": 1 if crowd else box[2] * box[3], "iscrowd": crowd})
        here = [one for one in wanted if one["image_id"] == picture["id"]]
        for _ in range(int(rng.choice([0, 3, 10, 130]))):
            box, category = random_box(rng, size), int(rng.integers(1, num_classes + 1))
            if here and rng.random() < 0.6:
                near = here[int(rng.integers(len(here)))]
                box, category = (
                    np.maximum(np.array(near["bbox"]) + rng.choice([0, 5]) * rng.normal(size=4), 0).tolist(),
                    near["category_id"],
                )
            score = float(rng.choice([rng.random(), round(rng.random(), 1), 1.0]))
            found.append({"image_id": picture["id"], "category_id": category, "bbox": box, "score": score})
    found = found or [{"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 0.0, 0.0], "score": 1.0}]
    categories = [{"id": number, "name": str(number)} for number in range(1, num_classes + 1)]
    return {"info": {}, "images": pictures, "annotations": wanted, "categories": categories}, found


def random_box(rng: np.random.Generator, size: np.ndarray) -> list[float]:
    """A box x, y, width, height inside of a picture, in half of the cases of whole pixels."""
    sides = rng.uniform(0, size)
    box = np.concatenate([rng.uniform(0, size - sides), sides])
    return (box.round() if rng.random() < 0.5 else box).tolist()


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--sets", type=int, default=1500)
    arguments = parser.parse_args()
    figures = {"demo": demo_figures(arguments.scenes), "random": random_figures(arguments.sets)}
    print(figures)
    print(report.write("coco_figures", {"scenes": arguments.scenes, "sets": arguments.sets}, figures))


if __name__ == "__main__":
    main()
