"""How fast ``florence2 label`` asks about pictures, against a loop that asks the same with ``engine.run``, one question after the other.

The pictures are drawn scenes in files, the model is the demo's, and both sides ask the same engine the same questions: five tasks, and
eight classes. The loop is what a user writes first; it reads each file anew, and its engine keeps the encoded image of the picture, so that
it is encoded once as well. A second loop asks an engine without that memory, as other libraries are. The turns are interleaved: each part
of the pictures is taken by each side in turn, in changing order. What counts is the clock of the whole, files of the data set included, and
for each side the median over all parts. Answers are compared: in fp32 both sides find the same, in bf16 a sum may be rounded otherwise in a
batch of another size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import report
from florence2.engine.engine import Engine, load
from florence2.labelling import LabelOptions, label
from florence2.labelling.questions import Plan
from florence2.labelling.records import Records
from florence2.scenes.scene import draw_scene
from florence2.scenes.world import IMAGE_SIZE, WORLD

SEED = 1_000_016
CASES = {
    "five tasks": LabelOptions(tasks=["od,caption,detailed-caption,dense-region-caption,ocr-with-region"]),
    "eight classes": LabelOptions(classes="red circle, blue square, triangle, star, green cross, circle, square, yellow star"),
}
LABEL, LOOP, UNCACHED = "florence2 label", "loop of engine.run", "loop of engine.run without the image cache"
Answers = dict[str, list[Any]]


def draw(folder: Path, count: int) -> list[Path]:
    """Files with scenes that the demo's world has."""
    paths = [folder / f"{number:05d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw_scene(np.random.default_rng([SEED, number]), size=IMAGE_SIZE, options=WORLD).image.save(path)
    return paths


def by_label(engine: Engine, paths: Sequence[Path], options: LabelOptions) -> Answers:
    """What ``label`` finds, read from its journal afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        label(list(paths), Path(folder) / "out", options, engine=engine)
        return {Path(one["path"]).name: [answer["response"] for answer in one["answers"]] for one in Records(Path(folder) / "out")}


def by_loop(engine: Engine, paths: Sequence[Path], options: LabelOptions) -> Answers:
    """What a loop finds."""
    prompts = Plan(options).first()
    return {path.name: [engine.run(path, prompt).to_dict(coordinates="float") for prompt in prompts] for path in paths}


def seconds_of(side: Callable[[], Answers]) -> tuple[float, Answers]:
    """How long a side takes, and what it found."""
    started = time.perf_counter()
    found = side()
    return time.perf_counter() - started, found


def measure(sides: dict[str, tuple[Any, Engine]], parts: Sequence[Sequence[Path]], options: LabelOptions) -> dict[str, Any]:
    """Pictures a second of each side, and how many times faster the first is than the others."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    same: list[bool] = []
    for turn, part in enumerate(parts):
        seen = {}
        for name in sorted(sides, reverse=bool(turn % 2)):
            side, engine = sides[name]
            seconds, seen[name] = seconds_of(partial(side, engine, part, options))
            times[name].append(seconds / len(part))
        same += [_without_scores(seen[LABEL])[path.name] == _without_scores(seen[LOOP])[path.name] for path in part]
    return {
        "pictures_per_s": {name: round(1 / median(found), 2) for name, found in times.items()},
        "times_faster": {name: round(median(ratios(times[name], times[LABEL])), 2) for name in sides if name != LABEL},
        "pictures_with_the_same_answers": round(sum(same) / len(same), 4),
    }


def ratios(others: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times faster ours is, part by part."""
    return [other / our for other, our in zip(others, ours, strict=True)]


def _without_scores(found: Answers) -> Answers:
    """Answers as they can be compared: one side asks for scores, and the others do not."""
    plain = json.loads(json.dumps(found))
    for answers in plain.values():
        for answer in answers:
            for value in answer.values():
                if isinstance(value, dict):
                    value.pop("scores", None)
    return plain


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--part", type=int, default=40, help="pictures that one side takes in a turn")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-write", action="store_true", help="print alone")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), arguments.pictures)
        parts = [paths[start : start + arguments.part] for start in range(0, len(paths), arguments.part)]
        with load("florence-2-demo", precision=arguments.precision) as engine:
            with load("florence-2-demo", precision=arguments.precision, image_cache_bytes=0) as uncached:
                sides = {LABEL: (by_label, engine), LOOP: (by_loop, engine), UNCACHED: (by_loop, uncached)}
                for name, options in CASES.items():
                    measure(sides, parts[:1], options)  # warm: what is compiled and allocated at first use
                    figures[name] = measure(sides, parts, options)
                    print(name, json.dumps(figures[name]), flush=True)
            settings = {"model": "florence-2-demo", "precision": engine.precision, "pictures": arguments.pictures, "part": arguments.part}
    if not arguments.no_write:
        print(report.write("label", {**settings, "questions": {name: Plan(one).first() for name, one in CASES.items()}}, figures))


if __name__ == "__main__":
    main()
