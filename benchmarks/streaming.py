"""What streaming gains and what it costs, with ``florence-2-demo`` on drawn scenes.

How soon a listener has the first text, the first object and the whole answer: in the process itself, and over HTTP from a server in a
process of its own. No image is kept, so that each request encodes its own. What events cost a decoder step: the same requests with and
without a listener, in turn, in one process, on one thread; the listener reads them in a thread of its own, as ``Engine.stream`` does.
The mean of a step is taken for each turn, and the median over the turns, by the processor time of the engine's thread and by the clock.
Steps of the demo are much shorter than those of any published model, so a model of base size with random weights is measured too, with
20 tokens an answer, whatever they are.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, median
from typing import Any

import torch
from PIL import Image

import florence2
from benchmarks import report
from benchmarks.http import wait_for_port
from fixtures.checkpoints import write_checkpoint
from florence2.answer_events import Event, TokensDecided
from florence2.data_sources import read_source
from florence2.engine.answer import Interpreter
from florence2.engine.decided import Reporter
from florence2.engine.engine import Engine
from florence2.engine.precision import choose_packing, choose_precision
from florence2.engine.preprocess import normalise
from florence2.engine.request import Request, SharedImage, start_search
from florence2.engine.scheduler import Scheduler
from florence2.engine.search import SpecialTokens
from florence2.images.resized import resize
from florence2.model import Florence2
from florence2.model.cpu import kernels
from florence2.request_options import GenerationOptions
from florence2.results import Result
from florence2.scenes.synthetic import FIRST_FREE_SEED
from florence2.tasks import Tokenizer, build_prompt
from florence2.weights import load_model, read_checkpoint, resolve
from florence2.weights.checkpoint import Checkpoint

MODEL = "florence-2-demo"
TAGS = ("<OD>", "<DENSE_REGION_CAPTION>")
SEARCHES: dict[str, int | None] = {"greedy": 1, "default beams": None}
SEED = FIRST_FREE_SEED + 4517
BEAMS = 3
LOADS = {
    "one request, greedy": (1, 1),
    "one request, three beams": (1, BEAMS),
    "48 requests, greedy": (48, 1),
    "16 requests, three beams": (16, BEAMS),
}
SIZE = (192, 192)
MOMENTS = ("first_text", "first_object", "whole")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--turns", type=int, default=40, help="of each kind, for the time of a step")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    name = f"synthetic:{arguments.scenes}?seed={SEED}"
    pictures = [record.picture.open() for record in read_source(name, for_training=False).sound()][: arguments.scenes]
    figures = {
        "steps": of_demo(pictures, arguments.turns) | of_base(pictures[0], arguments.turns // 8 or 1),
        "in_process": in_process(pictures),
        "http": over_http(pictures),
    }
    print(json.dumps(figures, indent=2))
    if not arguments.no_write:
        settings = {"model": MODEL, "precision": "fp32", "data": name, "scenes": len(pictures), "turns": arguments.turns}
        print(report.write("streaming", settings, figures))


def in_process(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """The moments of an answer, by task and search."""
    with florence2.load(MODEL, device="cpu", precision="fp32", image_cache_bytes=0) as engine:
        return by_case(pictures, partial(moments_of_engine, engine))


def over_http(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """The same over HTTP."""
    command = [sys.executable, "-m", "florence2", "serve", "--model", MODEL, "--port", "0", "--device", "cpu", "--precision", "fp32"]
    server = subprocess.Popen([*command, "--set", "image_cache_bytes=0"], stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", wait_for_port(server), timeout=60)
        try:
            return by_case(pictures, partial(moments_of_server, connection))
        finally:
            connection.close()
    finally:
        server.terminate()
        server.wait(30)


def by_case(pictures: Sequence[Image.Image], moments: Any) -> dict[str, Any]:
    """Milliseconds to each moment, and which part of the whole time has passed at the first object; medians over the scenes."""
    figures: dict[str, Any] = {}
    for tag in TAGS:
        for search, num_beams in SEARCHES.items():
            moments(pictures[0], tag, num_beams)  # warms up
            found = [moments(picture, tag, num_beams) for picture in pictures]
            seen = [one for one in found if len(one) == len(MOMENTS)]  # scenes in which something was found
            figures[f"{tag}, {search}"] = {
                **{moment: report.spread([one[moment] for one in seen]) for moment in MOMENTS},
                "first_object_share": round(median(one["first_object"] / one["whole"] for one in seen), 3),
                "scenes_with_objects": len(seen),
            }
            print(tag, search, figures[f"{tag}, {search}"], file=sys.stderr, flush=True)
    return figures


def moments_of_engine(engine: Engine, picture: Image.Image, tag: str, num_beams: int | None) -> dict[str, float]:
    """Seconds to the moments of one answer."""
    began = time.perf_counter()
    moments: dict[str, float] = {}
    for event in engine.stream(picture, tag, num_beams=num_beams):
        if isinstance(event, Result):
            moments["whole"] = time.perf_counter() - began
        elif not isinstance(event, TokensDecided):
            moments.setdefault("first_object", time.perf_counter() - began)
        elif event.text:
            moments.setdefault("first_text", time.perf_counter() - began)
    return moments


def moments_of_server(connection: http.client.HTTPConnection, picture: Image.Image, tag: str, num_beams: int | None) -> dict[str, float]:
    """Seconds to the moments of one answer, from the first byte that is sent."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    image = {"type": "base64", "value": base64.b64encode(file.getvalue()).decode("ascii")}
    body = json.dumps({"model_id": MODEL, "prompt": tag, "num_beams": num_beams, "image": image, "stream": True}).encode()
    began = time.perf_counter()
    connection.request("POST", "/infer/lmm", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read(300)!r}")
    names = {"text": "first_text", "object": "first_object", "done": "whole"}
    moments: dict[str, float] = {}
    for kind in kinds_of_events(response):
        moments.setdefault(names[kind], time.perf_counter() - began)
    return moments


def kinds_of_events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The kind of each server-sent event, once the event is there."""
    kind = ""
    while line := response.readline():
        if line.startswith(b"event:"):
            kind = line.removeprefix(b"event:").strip().decode()
        elif not line.strip() and kind:
            yield kind
            kind = ""


Stamp = tuple[float, float]
"""Processor time of the engine's thread, and the clock, in seconds."""


def stamp() -> Stamp:
    """The times now, in the engine's thread."""
    return time.thread_time(), time.perf_counter()


class Steps:
    """Runs requests about encoded images, and takes the time of each pass of the engine's loop.

    Args:
        model: the model.
        checkpoint: what it was loaded from.
        pictures: the requests are about them in turn.
        max_new_tokens: of an answer that has no other end; None for answers as long as the model makes them.
    """

    def __init__(
        self, model: Florence2, checkpoint: Checkpoint, pictures: Sequence[Image.Image], max_new_tokens: int | None = None
    ) -> None:
        self._tokenizer = Tokenizer.load(checkpoint.folder)
        self._max_new_tokens = max_new_tokens
        self._features = [model.encode_image(pixels_of(picture, checkpoint))[0] for picture in pictures]
        self._began: list[Stamp] = []
        self._ended: list[Stamp] = []
        self._events: SimpleQueue[Event | Future[Result]] = SimpleQueue()
        rows = max(requests * beams for requests, beams in LOADS.values())
        self._scheduler = Scheduler(model, max_rows=rows, before_pass=lambda: self._began.append(stamp()))

    def close(self) -> None:
        """End the loop."""
        self._scheduler.close()

    def seconds(self, tag: str, load: tuple[int, int], *, listens: bool) -> list[Stamp]:
        """The times of each step of one turn but the first, which admits the requests; making the results is part of them."""
        self._began.clear()
        self._ended.clear()
        requests = [self._request(tag, number, load[1], listens) for number in range(load[0])]
        for request in requests:
            request.future.add_done_callback(lambda _: self._ended.append(stamp()))
            request.future.add_done_callback(self._events.put)
        self._scheduler.submit(requests)
        num_left, num_events = len(requests), 0
        while num_left:
            if isinstance(self._events.get(), Future):
                num_left -= 1
            else:
                num_events += 1
        assert (num_events > 0) == listens
        borders = [*self._began[1:], max(self._ended)]
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(borders)]

    def _request(self, tag: str, number: int, num_beams: int, listens: bool) -> Request[Result]:
        prompt = build_prompt(tag)
        special = SpecialTokens() if self._max_new_tokens is None else SpecialTokens(eos=-1, forced_eos=None)
        options = GenerationOptions(num_beams=num_beams, max_new_tokens=self._max_new_tokens or 1024, no_repeat_ngram_size=3)
        search = start_search(options, special)
        interpreter = Interpreter(prompt, self._tokenizer, SIZE, frozenset())
        image = SharedImage(None, self._features[number % len(self._features)])
        request = Request(image, self._tokenizer.encode(prompt.sentence), search, interpreter)
        if listens:
            reporter = Reporter(search, interpreter, self._events.put, number)
            request.on_step, request.interpret = reporter.report, reporter.result
        return request


def pixels_of(picture: Image.Image, checkpoint: Checkpoint) -> torch.Tensor:
    """The model's input."""
    return normalise(resize(picture, checkpoint.image), checkpoint.image)[None]


def of_demo(pictures: Sequence[Image.Image], turns: int) -> dict[str, Any]:
    """Milliseconds of a step without and with a listener, by task and load."""
    return of_steps(resolve(MODEL), pictures, turns, TAGS, "", None)


def of_base(picture: Image.Image, turns: int) -> dict[str, Any]:
    """The same of a model of base size; its answers have no objects."""
    with tempfile.TemporaryDirectory() as folder:
        return of_steps(write_checkpoint(Path(folder), size="base"), [picture], turns, TAGS[:1], "base size, ", 20)


@torch.inference_mode()
def of_steps(
    folder: Path, pictures: Sequence[Image.Image], turns: int, tags: Sequence[str], what: str, max_new_tokens: int | None
) -> dict[str, Any]:
    """Milliseconds of a step of one model, by task and load."""
    torch.set_num_threads(1)
    kernels.prepare()
    checkpoint, chosen = read_checkpoint(folder), choose_precision("fp32", torch.device("cpu"))
    model = load_model(checkpoint, dtype=chosen.tower, packing=choose_packing(chosen, torch.device("cpu")))
    steps = Steps(model, checkpoint, pictures, max_new_tokens)
    figures: dict[str, Any] = {}
    try:
        for tag in tags:
            for name, load in LOADS.items():
                case = f"{tag}, {what}{name}"
                # Of many requests at once a turn has as much to count as several of one.
                figures[case] = with_and_without(partial(steps.seconds, tag, load), turns if load[0] == 1 else turns // 4 or 1)
                print(case, figures[case], file=sys.stderr, flush=True)
    finally:
        steps.close()
    return figures


def with_and_without(seconds: Callable[..., list[Stamp]], turns: int) -> dict[str, float]:
    """The mean time of a step in each turn, and of these the median; which steps are reported differs from turn to turn."""
    times: dict[bool, list[list[Stamp]]] = {False: [], True: []}
    for turn in range(turns + 1):
        for listens in (False, True) if turn % 2 else (True, False):
            times[listens].append(seconds(listens=listens))
    figures: dict[str, float] = {"steps": len(times[True][0])}
    for place, name in enumerate(("", "_by_the_clock")):
        means = {listens: [mean(step[place] for step in turn) for turn in found[1:]] for listens, found in times.items()}
        without, with_listener = (median(means[listens]) for listens in (False, True))  # the first turn warms up
        figures |= {
            f"without{name}_ms": round(without * 1000, 3),
            f"with{name}_ms": round(with_listener * 1000, 3),
            f"ratio{name}": round(with_listener / without, 4),
        }
    return figures


if __name__ == "__main__":
    main()
