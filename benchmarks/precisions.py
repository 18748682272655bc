"""What every precision costs in accuracy, on ``florence-2-demo``.

Scenes come from the demo's world under a seed that training never draws from. All precisions answer the same prompts, greedily: the
figures of ``florence2.evaluation.metrics``, and for each of the fifteen tasks how many answers have the very tokens that float32 gives.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import florence2
from benchmarks import report
from florence2.cli.evaluate import table
from florence2.data_sources import read_source
from florence2.evaluation.answers import answer_all
from florence2.evaluation.metrics import compute_metrics, metrics_as_dict
from florence2.scenes.synthetic import FIRST_FREE_SEED

SEED = FIRST_FREE_SEED + 4099
EXACT = "fp32"


def contest(device: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """The name of the results, and who is compared: what the results call it, its device and its precision.

    Precisions mean other types on a processor without products of bfloat16, so that results of both stand beside each other. On a GPU all
    are compared with float32 on the CPU.
    """
    if device == "cpu":
        return report.by_processor("precisions"), {precision: ("cpu", precision) for precision in (EXACT, "bf16", "int8")}
    return "precisions_gpu", {EXACT: ("cpu", EXACT)} | {f"{device} {name}": (device, name) for name in (EXACT, "bf16", "fp16")}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    name = f"synthetic:{arguments.scenes}?seed={SEED}"
    records = read_source(name, for_training=False).sound()
    measures, tokens = {}, {}
    result, contenders = contest(arguments.device)
    for called, (device, precision) in contenders.items():
        with florence2.load("florence-2-demo", device=device, precision=precision) as engine:
            answers = list(answer_all(engine, records, num_beams=1))
        found = compute_metrics(answers)
        measures[called] = metrics_as_dict(found)
        tokens[called] = [answer.result.token_ids for answer in answers]
        print(called, *table(found), sep="\n", flush=True)
    equal: dict[str, dict[str, dict[str, int]]] = {}
    for called in list(contenders)[1:]:
        tasks: dict[str, dict[str, int]] = defaultdict(lambda: {"equal": 0, "count": 0})
        for record, one, other in zip(records, tokens[EXACT], tokens[called], strict=True):
            task = tasks[str(record.tag)]
            task["equal"] += one == other
            task["count"] += 1
        equal[called] = dict(sorted(tasks.items()))
        print(called, {task: f"{value['equal']}/{value['count']}" for task, value in equal[called].items()})
    figures = {"measures": measures, "answers_equal_to_fp32": equal}
    print(report.write(result, {"model": "florence-2-demo", "data": name, "scenes": arguments.scenes}, figures))


if __name__ == "__main__":
    main()
