"""How well the scores of objects say that they are right: the demo model, scenes that neither training nor the scores' design has seen.

Every located task is asked about scenes of four worlds: as the demo model was trained on, with small shapes, crowded with shapes that
cover each other, and with noise, which makes wrong answers to tell from right ones. An object is right if its label is (of printed words
the text), and its overlap with a true one is at least a half: of boxes, of the boxes around quads, of the masks of outlines; a true
one counts once. Scores are held against what they were before (exp of the mean log-probability of all tokens of an object) and
against no scores. What was measured of every object goes into the result's file.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import florence2
from benchmarks import report
from florence2.datasets.record import Locations, locations
from florence2.engine.engine import Engine
from florence2.evaluation.overlaps import box_overlaps, mask_overlap
from florence2.results import Result
from florence2.scenes.scene import SceneOptions, draw_scene
from florence2.scenes.synthetic import FIRST_FREE_SEED
from florence2.scenes.targets import Example, left_to_right, make_targets
from florence2.scenes.world import WORLD
from florence2.tasks import TASKS, build_prompt
from florence2.tasks.answer import read_answer

SEED = FIRST_FREE_SEED + 919_191
LOCATED = [tag for tag, task in TASKS.items() if task.kind != "text"]
MIN_OVERLAP, NUM_BINS, THRESHOLD = 0.5, 10, 0.5
RANKINGS = ("constant", "before", "score")


@dataclass(frozen=True)
class World:
    """Scenes of one kind; ``noise`` is the largest standard deviation that is added to their pixels."""

    options: SceneOptions = WORLD
    noise: float = 0.0


WORLDS = {
    "as trained": World(),
    "small shapes": World(replace(WORLD, object_size=(0.05, 0.6))),
    "crowded": World(replace(WORLD, num_objects=(5, 9), max_overlap=0.6, num_words=(0, 3))),
    "noise": World(noise=40.0),
}


@dataclass(frozen=True)
class Scored:
    """One object: its score, what its score was before, and its overlap with the true object of its name."""

    score: float
    before: float
    overlap: float

    @property
    def is_right(self) -> bool:
        """Whether its name is right and its place is near enough."""
        return self.overlap >= MIN_OVERLAP


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100, help="of each world")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--model", default="florence-2-demo")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[Scored]]] = {tag: {world: [] for world in WORLDS} for tag in LOCATED}
    wanted: dict[str, dict[str, int]] = {tag: dict.fromkeys(WORLDS, 0) for tag in LOCATED}
    with florence2.load(arguments.model, device="cpu", precision="fp32") as engine:
        for world in WORLDS:
            for number in range(arguments.scenes):
                for tag, objects, num_wanted in scene_answers(engine, world, number, arguments.beams):
                    found[tag][world] += objects
                    wanted[tag][world] += num_wanted
            print(world, sum(len(by_world[world]) for by_world in found.values()), "objects", flush=True)
    figures = {"tasks": by_task(found, wanted), "worlds": by_world(found, wanted), "raw": raw(found)}
    for name, one in {**figures["worlds"], **figures["tasks"]}.items():
        print(f"{name:38}", *(f"{key} {value}" for key, value in one.items() if not isinstance(value, list)))
    settings = {
        "model": arguments.model,
        "scenes": arguments.scenes,
        "beams": arguments.beams,
        "precision": "fp32",
        "seed": SEED,
        "raw": "score, score before, overlap with the true object of that name; an object each",
    }
    name = "calibration" if arguments.beams == 1 else f"calibration_{arguments.beams}_beams"
    print(report.write(name, settings, figures))


def scene_answers(engine: Engine, world: str, number: int, num_beams: int) -> Iterator[tuple[str, list[Scored], int]]:
    """For each task that a scene allows: the objects found, and how many were to be found."""
    rng = np.random.default_rng([SEED, list(WORLDS).index(world), number])
    scene = draw_scene(rng, options=WORLDS[world].options)
    targets = make_targets(scene, rng)
    pixels = np.asarray(scene.image).astype(np.float64)
    pixels += rng.normal(0, rng.uniform(0, WORLDS[world].noise), pixels.shape) if WORLDS[world].noise else 0
    asked = [examples[int(rng.integers(len(examples)))] for tag in LOCATED if (examples := targets[tag])]
    prompts = [example.prompt for example in asked]
    results = engine.run_many(pixels.clip(0, 255).astype(np.uint8), prompts, scores=True, num_beams=num_beams)
    for example, result in zip(asked, results, strict=True):
        truth = true_places(example, scene.image.size, scene.objects)
        overlaps = right_overlaps(example.tag, truth, locations(result), scene.image.size)
        before = scores_before(result, engine)
        scores = result.scores or []
        yield example.tag, [Scored(*each) for each in zip(scores, before, overlaps, strict=True)], len(truth.labels)


def true_places(example: Example, size: tuple[int, int], shapes: Sequence[Any]) -> Locations:
    """Where things are: exactly, where the answer stands for whole shapes."""
    truth = locations(read_answer(build_prompt(example.prompt, image_size=size), example.answer, size))
    if example.tag in ("<OD>", "<DENSE_REGION_CAPTION>"):
        return replace(truth, boxes=tuple(tuple(shape.box) for shape in left_to_right(shapes)))
    return truth


def right_overlaps(tag: str, truth: Locations, found: Locations, size: tuple[int, int]) -> list[float]:
    """For each found object its overlap with a true one of its name, 0 where none is left for it."""
    if TASKS[tag].kind == "polygons":
        overlaps = np.array([[mask_overlap(one, other, size) for other in found.polygons] for one in truth.polygons])
        overlaps = overlaps.reshape(len(truth.polygons), len(found.polygons))
    else:
        around = [[_around(quad) for quad in part.quads] if part.quads else part.boxes for part in (truth, found)]
        overlaps = (
            box_overlaps(around[0], around[1]) if len(around[1]) == len(found.labels) else np.zeros((len(truth.labels), len(found.labels)))
        )
    compared = str.strip if TASKS[tag].kind == "quads" else lambda label: " ".join(label.casefold().split())
    names = [[compared(label) for label in part.labels] for part in (truth, found)]
    for row, name in enumerate(names[0]):
        overlaps[row, [column for column, other in enumerate(names[1]) if other != name]] = 0.0
    right = [0.0] * len(found.labels)
    while overlaps.size and overlaps.max() > 0:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        right[int(column)] = float(overlaps[row, column])
        overlaps[row, :], overlaps[:, column] = 0.0, 0.0
    return right


def _around(corners: Sequence[float]) -> tuple[float, ...]:
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])


def scores_before(result: Result, engine: Engine) -> list[float]:
    """Exp of the mean log-probability of all tokens of each object, which a score was before."""
    scores = []
    for label, of_label, of_locations, bins in zip(
        result.labels, result.label_scores or [], result.location_scores or [], result.bins, strict=True
    ):
        counts = len(engine.tokenizer.encode(label)) - 2 if of_label is not None else 0, _num_coordinates(bins)
        logarithms = [math.log(max(part or 1.0, 1e-30)) for part in (of_label, of_locations)]
        scores.append(math.exp((counts[0] * logarithms[0] + counts[1] * logarithms[1]) / max(sum(counts), 1)))
    return scores


def _num_coordinates(bins: Any) -> int:
    return sum(map(_num_coordinates, bins)) if isinstance(bins, list) else 1


def by_task(found: Mapping[str, Mapping[str, Sequence[Scored]]], wanted: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The figures of each task over all worlds, and of all together."""
    tasks = {tag: [one for objects in worlds.values() for one in objects] for tag, worlds in found.items()}
    counts = {tag: sum(worlds.values()) for tag, worlds in wanted.items()}
    everything = [one for objects in tasks.values() for one in objects]
    return {**{tag: figures(objects, counts[tag]) for tag, objects in tasks.items()}, "all": figures(everything, sum(counts.values()))}


def by_world(found: Mapping[str, Mapping[str, Sequence[Scored]]], wanted: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The figures of each world over all tasks."""
    objects: dict[str, list[Scored]] = defaultdict(list)
    for worlds in found.values():
        for world, some in worlds.items():
            objects[world] += some
    return {world: figures(some, sum(worlds[world] for worlds in wanted.values())) for world, some in objects.items()}


def figures(objects: Sequence[Scored], num_wanted: int) -> dict[str, Any]:
    """What is said of a set of objects, by each way to score them."""
    right = np.array([one.is_right for one in objects])
    rankings = {
        "constant": np.ones(len(objects)),
        "before": np.array([one.before for one in objects]),
        "score": np.array([one.score for one in objects]),
    }
    said: dict[str, Any] = {"objects": len(objects), "wanted": num_wanted, "right": round(float(right.mean()), 4)}
    for name, scores in rankings.items():
        said[f"{name} ap"] = round(average_precision(scores, right, num_wanted), 4)
    for name in ("before", "score"):
        scores, kept = rankings[name], rankings[name] >= THRESHOLD
        said[f"{name} calibration error"] = round(calibration_error(scores, right), 4)
        said[f"{name} brier"] = round(float(np.mean((scores - right) ** 2)), 4)
        said[f"{name} kept"] = round(float((kept & right).sum() / max(right.sum(), 1)), 4)
        said[f"{name} precision"] = round(float(right[kept].mean()), 4) if kept.any() else None
        said[f"{name} curve"] = curve(scores, right)
    return said


def average_precision(scores: np.ndarray, right: np.ndarray, num_wanted: int) -> float:
    """The mean precision at 101 recalls, as COCO has it, over all names together; equal scores stay in the order of the answers."""
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    recall, precision = hits / num_wanted, hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[places].mean())


def curve(scores: np.ndarray, right: np.ndarray) -> list[list[float]]:
    """Of each tenth of the range of scores that has any: their mean, the share that is right, and how many there are."""
    tenth = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    parts = [tenth == number for number in range(NUM_BINS)]
    return [[round(float(scores[part].mean()), 4), round(float(right[part].mean()), 4), int(part.sum())] for part in parts if part.any()]


def calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: how far score and share of right ones are apart, in the mean over the objects' tenths."""
    return sum(count * abs(score - share) for score, share, count in curve(scores, right)) / max(len(scores), 1)


def raw(found: Mapping[str, Mapping[str, Sequence[Scored]]]) -> dict[str, dict[str, str]]:
    """Everything that was measured, in as few lines as there are tasks and worlds."""
    return {
        tag: {world: "; ".join(f"{one.score:.4f} {one.before:.4f} {one.overlap:.3f}" for one in some) for world, some in worlds.items()}
        for tag, worlds in found.items()
    }


if __name__ == "__main__":
    main()
