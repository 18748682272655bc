"""A whole load test: look at the server, probe it, warm it up, run one load after the other, and put the result together.

In: ``Settings``, pictures and questions. Out: a dictionary for JSON with the settings, the machine and the figures of each run. Knows
nothing of tables, plots and files.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from florence2.client.wire import USER_AGENT
from florence2.cores import usable_cores
from florence2.load_testing.apis import Api, LmmApi, OpenAIApi, Options
from florence2.load_testing.figures import figures, raw
from florence2.load_testing.options import Load, Question
from florence2.load_testing.pictures import Pictures
from florence2.load_testing.running import Limits, Run, Runner
from florence2.load_testing.sending import Sender
from florence2.load_testing.servers import Server, look_at, probe
from florence2.load_testing.workload import planned_requests
from florence2.url_text import without_keys
from florence2.version import __version__

FORMAT = 1
_WARM_UP_AT_ONCE = 4.0


@dataclass(frozen=True)
class Settings:
    """How a server is tested.

    Attributes:
        url: its address.
        loads: one run for each, one after the other.
        limits: when a run ends.
        api: ``lmm``, ``openai`` or ``auto``.
        model: the model's id; None for the first that the server names.
        api_key: the key, if any.
        headers: further headers of each request.
        arrivals: ``poisson`` or ``constant``.
        order: of the pictures: ``turn`` or ``random``.
        repeat: the share of requests with a drawn picture that is sent again and again.
        is_streamed: whether answers come in events.
        num_beams: of the search; None for the server's choice.
        max_new_tokens: of an answer; None for the server's choice.
        timeout_s: how long an answer may take.
        warm_up: requests before the first run, which do not count.
        target_s: the latency that answers are to keep within; None for no goodput.
        seed: of everything that is left to chance.
        keeps_raw: whether the result has each request by itself.
    """

    url: str
    loads: tuple[Load, ...]
    limits: Limits
    api: str = "auto"
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    arrivals: str = "poisson"
    order: str = "turn"
    repeat: float = 0.0
    is_streamed: bool = False
    num_beams: int | None = None
    max_new_tokens: int | None = None
    timeout_s: float = 120.0
    warm_up: int = 8
    target_s: float | None = None
    seed: int = 0
    keeps_raw: bool = False


@dataclass
class Watcher:
    """Who is told how a test goes, and says when it is to end; this one is told nothing and lets it go on.

    Attributes:
        is_to_stop: whether the end is wanted.
        on_server: called with the server that was found.
        on_run: called with each load before it runs.
        on_progress: called with the number of requests of that run that have ended.
        on_figures: called with the figures of each run.
    """

    is_to_stop: Callable[[], bool] = lambda: False
    on_server: Callable[[Server], None] = lambda _: None
    on_run: Callable[[Load], None] = lambda _: None
    on_progress: Callable[[int], None] = lambda _: None
    on_figures: Callable[[dict[str, Any]], None] = lambda _: None


async def measure(settings: Settings, questions: Sequence[Question], prepare: Callable[[], Pictures], watcher: Watcher) -> dict[str, Any]:
    """The result of a test.

    Args:
        settings: how the server is tested.
        questions: what is asked.
        prepare: makes the pictures, once it is known that a server is there.
        watcher: is told how the test goes.

    Raises:
        NothingToMeasure: nothing answers, or not the requests of this test.
        InvalidOption: it is no such server, or no model is named, and the server names none.
    """
    keyed = {} if settings.api_key is None else {"authorization": f"Bearer {settings.api_key}"}
    headers = {"user-agent": USER_AGENT, **keyed, **settings.headers}
    server = await look_at(settings.url, settings.api, settings.model, headers)
    watcher.on_server(server)
    pictures = prepare()
    sender = Sender(
        settings.url,
        _api(settings, server),
        pictures,
        headers=headers,
        timeout_s=settings.timeout_s,
        is_streamed=settings.is_streamed,
        secrets=(settings.api_key, *settings.headers.values()),
    )
    try:
        planned = planned_requests(questions, pictures, order=settings.order, repeat=settings.repeat, seed=settings.seed)
        chosen = {"arrivals": settings.arrivals, "seed": settings.seed, "is_to_stop": watcher.is_to_stop}
        await probe(Runner(sender, planned, Limits(num_requests=1), **chosen))
        if settings.warm_up > 1:
            await Runner(sender, planned, Limits(num_requests=settings.warm_up - 1), **chosen).run(Load("concurrency", _WARM_UP_AT_ONCE))
        runner = Runner(sender, planned, settings.limits, **chosen, on_progress=watcher.on_progress)
        runs = []
        for load in settings.loads:
            if watcher.is_to_stop():
                break
            watcher.on_run(load)
            runs.append(_told(await runner.run(load), settings, watcher))
    finally:
        await sender.close()
    return _result(settings, server, questions, pictures, runs)


def last_kept_up(runs: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of runs in a row, the last one before the first that the server did not keep up with; None where there is none."""
    found = None
    for run in runs:
        if not run["kept_up"]:
            break
        found = run
    return found


def _told(run: Run, settings: Settings, watcher: Watcher) -> dict[str, Any]:
    found = figures(run, settings.target_s)
    if settings.keeps_raw:
        found["requests"] = raw(run)
    watcher.on_figures(found)
    return found


def _api(settings: Settings, server: Server) -> Api:
    """The form of the requests."""
    beams = {} if settings.num_beams is None else {"num_beams": settings.num_beams}
    if server.api == "lmm":
        most = {} if settings.max_new_tokens is None else {"max_new_tokens": settings.max_new_tokens}
        options = Options(server.model, settings.is_streamed, settings.api_key, {**beams, **most})
        return LmmApi(options, asks_for_usage=server.is_ours)
    most = {} if settings.max_new_tokens is None else {"max_tokens": settings.max_new_tokens}
    return OpenAIApi(Options(server.model, settings.is_streamed, None, {**beams, **most}))


def _result(
    settings: Settings, server: Server, questions: Sequence[Question], pictures: Pictures, runs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Everything for JSON; no key, and of further headers the names alone."""
    best = last_kept_up(runs)
    return {
        "format": FORMAT,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "server": {"url": without_keys(settings.url), "name": server.name, "api": server.api, "model": server.model},
        "settings": {
            "loads": [{load.kind: load.value} for load in settings.loads],
            "duration_s": settings.limits.duration_s,
            "num_requests": settings.limits.num_requests,
            "arrivals": settings.arrivals,
            "questions": [{"name": one.name, "prompts": list(one.prompts), "weight": one.weight} for one in questions],
            "pictures": {"source": pictures.source, "mean_bytes": round(pictures.mean_bytes), "order": settings.order},
            "repeat": settings.repeat if pictures.are_varied else None,
            "stream": settings.is_streamed,
            "num_beams": settings.num_beams,
            "max_new_tokens": settings.max_new_tokens,
            "timeout_s": settings.timeout_s,
            "warm_up": settings.warm_up,
            "target_s": settings.target_s,
            "has_key": settings.api_key is not None,
            "headers": sorted(settings.headers),
            "seed": settings.seed,
        },
        "generator": _machine(),
        "kept_up_with": None if best is None or len(settings.loads) == 1 else best["load"],
        "runs": list(runs),
    }


def _machine() -> dict[str, Any]:
    """What the generator ran on."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"florence2": __version__, **{name: version(name) for name in ("httpx2", "numpy", "pillow")}},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
