"""What every precision costs in accuracy, on ``florence-2-demo``.

Scenes come from the demo's world under a seed that training never draws from. All precisions answer the same prompts: the measures of
``florence2.training.evaluation``, and for each of the fifteen tasks how many answers have the very tokens that float32 gives, greedily.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from PIL import Image

import florence2
from benchmarks import report
from florence2.engine.engine import Engine
from florence2.training.demo import WORLD
from florence2.training.evaluation import FIRST_FREE_SEED, evaluate
from florence2.training.scenes import draw_scene
from florence2.training.targets import make_targets

SEED = FIRST_FREE_SEED + 4099
PRECISIONS = ("fp32", "bf16", "int8")


def prompts(num_scenes: int) -> Iterator[tuple[Image.Image, list[tuple[str, str]]]]:
    """Scenes, each with one (tag, prompt) for every task that it has an answer to."""
    for number in range(num_scenes):
        rng = np.random.default_rng([SEED + 1, number])
        scene = draw_scene(rng, size=192, options=WORLD)
        asked = [(tag, examples[0].prompt) for tag, examples in make_targets(scene, rng).items() if examples]
        yield scene.image, asked


def answers(engine: Engine, num_scenes: int) -> dict[str, list[list[int]]]:
    """The tokens of every answer, by task."""
    tokens: dict[str, list[list[int]]] = defaultdict(list)
    for image, asked in prompts(num_scenes):
        for (tag, _), result in zip(asked, engine.run_many(image, [prompt for _, prompt in asked], num_beams=1), strict=True):
            tokens[tag].append(result.token_ids)
    return tokens


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    arguments = parser.parse_args()
    measures, tokens = {}, {}
    for precision in PRECISIONS:
        with florence2.load("florence-2-demo", device="cpu", precision=precision) as engine:
            values = evaluate(engine, num_scenes=arguments.scenes, seed=SEED, options=WORLD, num_beams=1)
            measures[precision] = {name: {"value": round(value.value, 4), "count": value.count} for name, value in values.items()}
            tokens[precision] = answers(engine, arguments.scenes)
        print(precision, measures[precision], flush=True)
    equal = {
        precision: {
            task: {"equal": sum(one == other for one, other in zip(tokens["fp32"][task], found, strict=True)), "count": len(found)}
            for task, found in sorted(tokens[precision].items())
        }
        for precision in PRECISIONS[1:]
    }
    for precision, tasks in equal.items():
        print(precision, {task: f"{value['equal']}/{value['count']}" for task, value in tasks.items()})
    figures = {"measures": measures, "answers_equal_to_fp32": equal}
    print(report.write("precisions", {"model": "florence-2-demo", "scenes": arguments.scenes, "seed": SEED}, figures))


if __name__ == "__main__":
    main()
