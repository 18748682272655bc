"""How well ``florence-2-demo`` answers about scenes that it was never trained on.

Scenes come from the demo's world under a seed that training never draws from. Greedy search and the checkpoint's own three
beams are measured on the same scenes, one after the other; nothing is chosen.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import florence2
from benchmarks import report
from florence2.training.demo import WORLD
from florence2.training.evaluation import FIRST_FREE_SEED, evaluate

SEED = FIRST_FREE_SEED + 2311
SEARCHES = {"greedy": 1, "three beams": 3}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--model", default="florence-2-demo")
    arguments = parser.parse_args()
    figures = {}
    with florence2.load(arguments.model, device="cpu", precision="fp32") as engine:
        for name, num_beams in SEARCHES.items():
            measures = evaluate(engine, num_scenes=arguments.scenes, seed=SEED, options=WORLD, num_beams=num_beams)
            figures[name] = {measure: {"value": round(value.value, 4), "count": value.count} for measure, value in measures.items()}
            print(name, figures[name], flush=True)
    settings = {"model": arguments.model, "scenes": arguments.scenes, "seed": SEED, "precision": "fp32", "world": asdict(WORLD)}
    print(report.write("demo_accuracy", settings, figures))


if __name__ == "__main__":
    main()
