"""What tiles find that the whole picture does not, and what they cost, on mosaics of the demo's world.

A mosaic is 4 x 4 scenes in one picture, laid like bricks, so that seams of tiles cut through scenes; the demo sees each at a quarter of the
size that it was trained on. Every picture is asked for objects and for words, as a whole and in several ways of tiles; at last each scene
by itself, which is the most that tiles could give.
A thing is found where its label and text are right and its box has an IoU of at least 0.5 with the true one. Scenes come from a seed that
neither training nor the tuning of ``florence2.tiling`` has seen.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

import florence2
from benchmarks import report
from florence2.engine.engine import Engine
from florence2.evaluation.overlaps import LabelledBox, match
from florence2.results import Result
from florence2.scenes.synthetic import FIRST_FREE_SEED, ScenePicture
from florence2.scenes.world import IMAGE_SIZE, WORLD
from florence2.tiling.tiles import Tiles

SEED = FIRST_FREE_SEED + 4177
SIDE = 4
SCENE = IMAGE_SIZE
EMPTY = replace(WORLD, num_objects=(0, 0), num_words=(0, 0))
TASKS = ("<OD>", "<OCR_WITH_REGION>")
WAYS: dict[str, Tiles | None] = {
    "whole picture": None,
    **{f"{cut}": Tiles(cut) for cut in ("2x2", "3x3", "4x4", "5x5", 280)},
    "4x4, no overlap": Tiles("4x4", 0),
    "4x4, overlap 0.1": Tiles("4x4", 0.1),
    "4x4, overlap 0.3": Tiles("4x4", 0.3),
    "4x4, tiles only": Tiles("4x4", includes_whole=False),
}

Answers = tuple[Sequence[LabelledBox], Sequence[LabelledBox]]


@dataclass(frozen=True)
class Mosaic:
    """One picture.

    Attributes:
        picture: the picture.
        scenes: what it is made of, with the left upper corner of each.
        things: its objects, and its words.
    """

    picture: Image.Image
    scenes: Sequence[tuple[Image.Image, tuple[int, int]]]
    things: Answers


def draw_mosaic(number: int) -> Mosaic:
    """Mosaic number ``number``."""
    picture = Image.new("RGB", (SIDE * SCENE + SCENE // 2, SIDE * SCENE))
    scenes, objects, words = [], [], []
    for row in range(SIDE):  # what the bricks leave free
        empty, _ = ScenePicture(SEED + 1, number * SIDE + row, SCENE, EMPTY).draw()
        picture.paste(empty.image, (0 if row % 2 else picture.width - SCENE, row * SCENE))
    for place in range(SIDE * SIDE):
        row, column = divmod(place, SIDE)
        left, top = column * SCENE + row % 2 * (SCENE // 2), row * SCENE
        scene, _ = ScenePicture(SEED, number * SIDE * SIDE + place, SCENE, WORLD).draw()
        picture.paste(scene.image, (left, top))
        scenes.append((scene.image, (left, top)))
        objects += [(thing.label, moved(thing.box, left, top)) for thing in scene.objects]
        words += [(word.text, moved(word.box, left, top)) for word in scene.words]
    return Mosaic(picture, scenes, (objects, words))


def moved(box: Sequence[float], left: int, top: int) -> tuple[float, ...]:
    """A box in the frame of a larger picture."""
    return (box[0] + left, box[1] + top, box[2] + left, box[3] + top)


def found_in(results: Sequence[Result], left: int = 0, top: int = 0) -> Answers:
    """The objects and the words of two results."""
    objects, words = ([(found.label, moved(found.box, left, top)) for found in result.objects] for result in results)
    return objects, words


def in_tiles(engine: Engine, mosaic: Mosaic, tiles: Tiles | None) -> Answers:
    """What is found in the picture."""
    return found_in(engine.run_many(mosaic.picture, TASKS, num_beams=1, tiles=tiles, keep_image=False))


def scene_by_scene(engine: Engine, mosaic: Mosaic) -> Answers:
    """What is found in each scene by itself."""
    futures = [engine.submit_many(scene, TASKS, num_beams=1, keep_image=False) for scene, _ in mosaic.scenes]
    answers = [found_in([future.result() for future in asked], *corner) for asked, (_, corner) in zip(futures, mosaic.scenes, strict=True)]
    objects, words = ([item for answer in answers for item in answer[index]] for index in (0, 1))
    return objects, words


def count(mosaic: Mosaic, answers: Answers) -> Counter[str]:
    """How many things were wanted, found and right; of words, too, how many stand where one is, whatever was read."""
    counts: Counter[str] = Counter()
    for name, wanted, found in zip(("objects", "words"), mosaic.things, answers, strict=True):
        counts.update({f"{name}_wanted": len(wanted), f"{name}_found": len(found), f"{name}_right": num_right(wanted, found)})
    places = [[("", box) for _, box in words] for words in (mosaic.things[1], answers[1])]
    counts["words_placed"] += num_right(*places)
    return counts


def num_right(wanted: Sequence[LabelledBox], found: Sequence[LabelledBox]) -> int:
    """How many of the things were found."""
    return sum(overlap >= 0.5 for overlap in match(wanted, found))


def figures_of(counts: Counter[str], seconds: Sequence[float], num_encodings: int) -> dict[str, Any]:
    """Shares and times of one way of asking."""
    shares = {
        f"{name}_{share}": round(counts[right] / max(counts[f"{name}_{of}"], 1), 4)
        for name in ("objects", "words")
        for share, right, of in (("recall", f"{name}_right", "wanted"), ("precision", f"{name}_right", "found"))
    }
    placed = round(counts["words_placed"] / max(counts["words_wanted"], 1), 4)
    return {**shares, "word_places_recall": placed, "encodings": num_encodings, "ms": report.spread(seconds), "counts": dict(counts)}


def measure(mosaics: Sequence[Mosaic], ask: Callable[[Mosaic], Answers], num_encodings: int) -> dict[str, Any]:
    """The figures of one way of asking."""
    counts: Counter[str] = Counter()
    seconds = []
    for mosaic in mosaics:
        started = time.perf_counter()
        answers = ask(mosaic)
        seconds.append(time.perf_counter() - started)
        counts += count(mosaic, answers)
    return figures_of(counts, seconds, num_encodings)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosaics", type=int, default=20)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    mosaics = [draw_mosaic(number) for number in range(arguments.mosaics)]
    size = mosaics[0].picture.size
    figures: dict[str, Any] = {}
    # Without the cache, or the whole picture would be encoded for the first way alone.
    with florence2.load("florence-2-demo", device="cpu", precision=arguments.precision, image_cache_bytes=0) as engine:
        in_tiles(engine, mosaics[0], None)  # what the first request alone costs
        for name, tiles in WAYS.items():
            num_encodings = 1 if tiles is None else len(tiles.boxes(size))
            figures[name] = measure(mosaics, lambda mosaic, tiles=tiles: in_tiles(engine, mosaic, tiles), num_encodings)
            print(name, figures[name], flush=True)
        figures["each scene by itself"] = measure(mosaics, lambda mosaic: scene_by_scene(engine, mosaic), SIDE * SIDE)
    settings = {"model": "florence-2-demo", "mosaics": len(mosaics), "scenes": SIDE * SIDE, "size": list(size), "beams": 1}
    print(report.write("tiles", {**settings, "seed": SEED, "precision": arguments.precision}, figures))


if __name__ == "__main__":
    main()
