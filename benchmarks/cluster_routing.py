"""What it is worth to route requests by their image: the cache's hits, and the throughput.

    python -m benchmarks.cluster_routing --replicas 4 --clients 8

On one Ray, the engines are deployed twice, with ``routing: image`` and with ``routing: load``, with ``florence-2-demo`` and a core for each
replica. Clients send five prompts about each picture as five requests, at once or one after the other, and then go on to the next picture.
The two deployments get the same pictures in turn, in rounds whose order changes; each picture is new to both. Requests go to the replicas
by handles, without the ingress: what is compared is where they go.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from prometheus_client.core import Metric

from benchmarks import report
from fixtures.checkpoints import write_checkpoint
from florence2.cluster.started import FAST
from florence2.image_files import Structure, inspect
from florence2.scenes.scene import draw_scene
from florence2.scenes.synthetic import FIRST_FREE_SEED

MODEL = "measured"
PROMPTS = ("<OD>", "<CAPTION>", "<DETAILED_CAPTION>", "<DENSE_REGION_CAPTION>", "<OCR>")
ROUTINGS = ("image", "load")
ANSWER_S = 120
COUNTED = ("hits", "misses")


@dataclass(frozen=True)
class Deployed:
    """The engines with one routing: their handle, and the options of each request."""

    handle: Any
    options: dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="florence-2-demo", help="or 'base': of that size, with random weights, 12 tokens an answer")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--images", type=int, default=60, help="pictures in each round")
    parser.add_argument("--rounds", type=int, default=4, help="of each way to send, for each deployment")
    parser.add_argument("--name", default="cluster_routing", help="of the file under benchmarks/results")
    arguments = parser.parse_args()
    os.environ.setdefault(FAST, "1")  # as ``florence2 cluster serve`` sets it
    import ray
    from ray import serve

    cores = 2 * arguments.replicas
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        serve.start(proxy_location="Disabled")
        with TemporaryDirectory() as folder:
            model = str(write_checkpoint(Path(folder) / "base", size="base")) if arguments.model == "base" else arguments.model
            for routing in ROUTINGS:
                deploy(routing, model, arguments.replicas)
            figures = asyncio.run(measure(arguments))
    finally:
        ray.shutdown()
    settings = {**vars(arguments), "ray": ray.__version__, "prompts": PROMPTS}
    print(report.write(arguments.name, settings, figures).read_text(encoding="utf-8"))


def deploy(routing: str, model: str, num_replicas: int) -> None:
    """Deploy the engines under the name of their routing."""
    from ray import serve

    from florence2.cluster.application import engines
    from florence2.cluster.config import cluster_config

    config = {
        "settings": {"host": "127.0.0.1", "model": [f"{MODEL}={model}"], "log_level": "warning"},
        "engines": {"min_replicas": num_replicas, "max_replicas": num_replicas},
        "routing": routing,
    }
    serve.run(engines(cluster_config(config, "the benchmark")), name=routing, route_prefix=None)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of both ways to send."""
    from ray import serve

    options = {"max_new_tokens": 12} if arguments.model == "base" else {}
    both = {routing: Deployed(serve.get_deployment_handle("Engines", routing), options) for routing in ROUTINGS}
    try:
        return await compare(both, arguments)
    finally:
        await serve.shutdown_async()  # handles belong to this event loop


async def compare(both: Mapping[str, Deployed], arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of the deployments, by turns."""
    pictures = scenes()
    for deployed in both.values():  # each engine's first steps
        await asyncio.gather(
            *(five(deployed, str(index), file, at_once=True) for index, file in zip(range(4 * arguments.replicas), pictures, strict=False))
        )
    figures = {}
    for way, at_once in (("five_at_once", True), ("one_after_the_other", False)):
        rounds: dict[str, list[dict[str, Any]]] = {routing: [] for routing in ROUTINGS}
        for number in range(arguments.rounds):
            files = [next(pictures) for _ in range(arguments.images)]
            for routing in ROUTINGS if number % 2 == 0 else reversed(ROUTINGS):
                rounds[routing].append(await one_round(both[routing], files, arguments.clients, at_once))
        figures[way] = {routing: summary(found) for routing, found in rounds.items()}
        pairs = zip(*(rounds[routing] for routing in ROUTINGS), strict=True)
        figures[way]["times_the_throughput"] = round(median(by["requests_a_second"] / to["requests_a_second"] for by, to in pairs), 3)
    return figures


def scenes() -> Iterator[Structure]:
    """Drawn pictures as files, each another one."""
    for seed in count(FIRST_FREE_SEED):
        file = io.BytesIO()
        draw_scene(np.random.default_rng(seed)).image.save(file, "PNG")
        structure = inspect(file.getvalue())
        assert structure is not None
        yield structure


async def one_round(deployed: Deployed, files: Sequence[Structure], num_clients: int, at_once: bool) -> dict[str, Any]:
    """The figures of some clients that share some pictures."""
    before = await totals(deployed.handle)
    latencies: list[float] = []
    waiting = iter(enumerate(files))

    async def client() -> None:
        for index, file in waiting:
            latencies.extend(await five(deployed, f"{id(files)}-{index}", file, at_once=at_once))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(num_clients)))
    took_s = time.perf_counter() - began
    hits, misses = ((now - then) for now, then in zip(await totals(deployed.handle, len(latencies) + sum(before)), before, strict=True))
    return {
        "requests_a_second": len(latencies) / took_s,
        "hit_rate": hits / (hits + misses),
        "p50_ms": 1000 * median(latencies),
        "p95_ms": 1000 * quantiles(latencies, n=20)[-1],
    }


async def five(deployed: Deployed, image: str, file: Structure, *, at_once: bool) -> list[float]:
    """The latencies of five requests about one picture."""
    from florence2.cluster.messages import Asked
    from florence2.server.inference.request import RequestPrompt
    from florence2.tasks.prompt import parse_prompt

    of_image = deployed.handle.options(multiplexed_model_id=MODEL, session_id=image)

    async def one(prompt: str) -> float:
        began = time.perf_counter()
        asked = Asked(MODEL, file, (RequestPrompt(parse_prompt(prompt)),), deployed.options, "", True, None)
        reply = await asyncio.wait_for(of_image.answer.remote(asked), ANSWER_S)
        assert isinstance(reply, list), reply
        return time.perf_counter() - began

    if at_once:
        return await asyncio.gather(*(one(prompt) for prompt in PROMPTS))
    return [await one(prompt) for prompt in PROMPTS]


async def totals(handle: Any, num_expected: int = 0) -> tuple[int, int]:
    """Hits and misses of all replicas' caches since their start, once there are as many as expected: engines tell them by heartbeats."""
    while True:
        replies: list[list[Metric]] = await handle.broadcast("measured").results_async()
        samples = [sample for reply in replies for metric in reply for sample in metric.samples]
        hits, misses = (int(sum(one.value for one in samples if one.name == f"florence2_image_cache_{name}_total")) for name in COUNTED)
        if hits + misses >= num_expected:
            return hits, misses
        await asyncio.sleep(0.2)


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the rounds, and the range of the throughput."""
    rates = [found["requests_a_second"] for found in rounds]
    figures = {name: round(median(found[name] for found in rounds), 3) for name in rounds[0]}
    return {**figures, "requests_a_second_min": round(min(rates), 3), "requests_a_second_max": round(max(rates), 3)}


if __name__ == "__main__":
    main()
