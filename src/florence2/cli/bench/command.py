"""``florence2 bench serve``: options into a load test, and its result into tables, JSON and a plot.

Nothing heavy is imported before the command runs. What is wrong with the options, the files and the server is said before anything is
measured; Ctrl-C ends the test early, and what was measured is reported.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.bench.report import load_line, print_report
from florence2.cli.options import one_of
from florence2.cli.progress import Progress, show_progress
from florence2.cli.stopping import Stop, stopped_softly
from florence2.console import INTERRUPTED, json_line, notify
from florence2.errors import InvalidOption

if TYPE_CHECKING:
    from florence2.load_testing.load_test import Settings, Watcher
    from florence2.load_testing.options import Load
    from florence2.load_testing.pictures import Pictures

_STOPPING = "florence2: stopping; what was measured is reported (Ctrl-C again: at once)"
_KEY_VARIABLE = "FLORENCE2_API_KEY"
_STDOUT = "-"
_GENERATED = 32


def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's address, such as http://localhost:9001.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE...]", help="Files, folders or patterns of pictures to send. Default: drawn ones.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="RATE", help="Requests a second, answered or not. Several, one after the other: 1,2,4,8."),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option("--concurrency", metavar="N", help="Instead of --rate: clients that each wait for their answer. Or several: 1,4,16."),
    ] = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="How long each load lasts: 60s, 500ms, 5m. Default: 60s.")] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", metavar="N", min=1, help="Requests of each load, instead of --duration, or at most so many.")
    ] = None,
    arrivals: Annotated[
        str, typer.Option(help="With --rate: poisson, as of users, or constant.", autocompletion=one_of("poisson", "constant"))
    ] = "poisson",
    mix: Annotated[
        str | None,
        typer.Option(metavar="MIX", help="Tasks and how often each is asked. Default: <CAPTION>=4,<OD>=2,<OCR>=1."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="For tasks of --mix that need a text. May be repeated.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="PROMPT", help="A prompt that is sent as it is, with the weight 1. May be repeated."),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Draw so many pictures, and send variants of them. Default: {_GENERATED}."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of drawn pictures in pixels.")] = "640x480",
    repeat: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests with a drawn picture that was sent before, which a cache may know.")
    ] = 0.0,
    order: Annotated[str, typer.Option(help="Of the pictures: turn or random.", autocompletion=one_of("turn", "random"))] = "turn",
    api: Annotated[
        str,
        typer.Option(help="lmm (/infer/lmm), openai (/v1/chat/completions), auto: asked.", autocompletion=one_of("auto", "lmm", "openai")),
    ] = "auto",
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model's id. Default: the first that the server names.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help=f"The server's key. Default: {_KEY_VARIABLE} of the environment, unseen by others."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="A header of each request. May be repeated.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Let answers come as events, and measure the first one and the gaps.")] = False,
    beams: Annotated[int | None, typer.Option("--beams", "-b", min=1, help="Beams of the search; 1 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens.")] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="A request without a whole answer by then has failed.")] = "120s",
    warm_up: Annotated[int, typer.Option(metavar="N", min=0, help="Requests before the first load, which do not count.")] = 8,
    target: Annotated[
        str | None, typer.Option(metavar="TIME", help="Goodput: how many requests are answered within this time, such as 2s.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is left to chance: the same seed sends the same.")] = 0,
    json_: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="With --json: each request by itself, too.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result: a file that ends in .png, .svg or .pdf.")] = None,
) -> None:
    """Measure how a server bears a load: latency, throughput, errors."""
    from florence2.load_testing import options as read
    from florence2.load_testing.load_test import Settings
    from florence2.load_testing.running import Limits

    _check_outputs(json_, plot, raw=raw)
    _check_words(arrivals=arrivals, order=order, api=api)
    questions = read.parse_questions(mix, prompt or (), text or ())
    address, api = _address(url, api)
    lasting = None if duration is None and requests is not None else read.parse_duration(duration or "60s", "duration")
    settings = Settings(
        address,
        read.parse_loads(rate, concurrency),
        Limits(lasting, requests),
        api=api,
        model=model,
        api_key=_key(api_key),
        headers=dict(map(read.parse_header, header or ())),
        arrivals=arrivals,
        order=order,
        repeat=repeat,
        is_streamed=stream,
        num_beams=beams,
        max_new_tokens=max_new_tokens,
        timeout_s=read.parse_duration(timeout, "timeout"),
        warm_up=warm_up,
        target_s=None if target is None else read.parse_duration(target, "target"),
        seed=seed,
        keeps_raw=raw,
    )
    drawn_size = read.parse_size(size)
    prepare = _pictures(images or (), generate, drawn_size, settings)
    with stopped_softly(_STOPPING) as stop, _watched(settings, stop) as watcher:
        result = _measured(settings, questions, prepare, watcher)
    _report(result, json_, plot)
    if stop.is_wanted():
        raise typer.Exit(stop.exit_code)


def _check_outputs(json_: str | None, plot: Path | None, *, raw: bool) -> None:
    """Refuse what could not be written at the end."""
    from florence2.load_testing.plot import check_plot
    from florence2.outputs import check_folder

    if plot is not None:
        check_plot(plot)
        check_folder(plot.parent, "plot")
    if json_ is not None and json_ != _STDOUT:
        check_folder(Path(json_).parent, "json_")
    if raw and json_ is None:
        raise InvalidOption("--raw goes with --json", field="raw")


def _check_words(**given: str) -> None:
    """Refuse a word that an option does not know."""
    from florence2.load_testing.servers import APIS
    from florence2.load_testing.workload import ARRIVALS, ORDERS

    for field, known in (("arrivals", ARRIVALS), ("order", ORDERS), ("api", APIS)):
        if given[field] not in known:
            raise InvalidOption(f"--{field} must be one of {', '.join(known)}; got {given[field]!r}", field=field)


def _address(url: str, api: str) -> tuple[str, str]:
    """The server's address, and the form of requests where the address says it: clients of OpenAI's API write ``/v1`` behind it."""
    from florence2.client.errors import InvalidParameter
    from florence2.client.wire import server_url

    try:
        address = server_url(url)
    except InvalidParameter as error:
        raise InvalidOption(error.message.replace("api_url", "URL", 1), field="url") from None
    if address.endswith("/v1") and api != "lmm":
        return address.removesuffix("/v1"), "openai"
    return address.removesuffix("/infer/lmm"), api


def _key(given: str | None) -> str | None:
    from florence2.client.wire import checked_key

    return checked_key(os.environ.get(_KEY_VARIABLE) if given is None else given)


def _pictures(images: Sequence[str], generate: int | None, size: tuple[int, int], settings: Settings) -> Callable[[], Pictures]:
    """What makes the pictures that are sent: files are read at once, others are drawn when there is a server for them."""
    from florence2.load_testing.pictures import draw_pictures, read_pictures

    if images and (generate is not None or settings.repeat):
        raise InvalidOption("--generate and --repeat are for drawn pictures; leave them or IMAGE out", field="generate")
    if images:
        pictures = read_pictures(images, lambda line: notify(f"florence2: {line}"))
        return lambda: pictures
    count = _GENERATED if generate is None else generate

    def draw() -> Pictures:
        with show_progress("pictures drawn", count) as progress:
            return draw_pictures(count, size, settings.seed, progress.update)

    return draw


@contextmanager
def _watched(settings: Settings, stop: Stop) -> Iterator[Watcher]:
    """What shows how the test goes; the bar of a load ends with it."""
    from florence2.load_testing.load_test import Watcher

    with ExitStack() as shown:
        bars: list[Progress] = []

        def begin(load: Load) -> None:
            expected = settings.limits.num_requests
            if load.kind == "rate" and settings.limits.duration_s is not None:
                by_time = round(load.value * settings.limits.duration_s)
                expected = by_time if expected is None else min(expected, by_time)
            bars[:] = [shown.enter_context(show_progress(f"requests, {load}", expected))]

        def end(figures: dict[str, Any]) -> None:
            shown.close()
            if len(settings.loads) > 1:
                notify(f"florence2: {load_line(figures)}")

        yield Watcher(
            stop.is_wanted,
            on_server=lambda server: notify(f"florence2: {server.name or 'a server'}, model {server.model}, by its {server.api} API"),
            on_run=begin,
            on_progress=lambda num_done: bars[0].update(num_done),
            on_figures=end,
        )


def _measured(settings: Settings, questions: Any, prepare: Callable[[], Pictures], watcher: Watcher) -> dict[str, Any]:
    """The result, or the exit of a user who did not want to wait for its first run."""
    from florence2.load_testing.load_test import measure

    try:
        result = asyncio.run(measure(settings, questions, prepare, watcher))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not result["runs"]:
        notify("florence2: stopped before anything was measured")
        raise typer.Exit(INTERRUPTED)
    return result


def _report(result: dict[str, Any], json_: str | None, plot: Path | None) -> None:
    """Print the tables, or the JSON, and write the files; none that is there is written over."""
    from florence2.load_testing.plot import draw
    from florence2.outputs import NewFiles

    if json_ == _STDOUT:
        print(json_line(result), flush=True)
    else:
        print_report(result)
    files = [] if json_ in (None, _STDOUT) else [Path(json_)]
    for path in [*files, *([plot] if plot else [])]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NewFiles(path.parent).create(path.stem, path.suffix) as file:
            if path is plot:
                draw(result, file, path.suffix[1:].lower())
            else:
                file.write(json.dumps(result, indent=1, ensure_ascii=False).encode() + b"\n")
        notify(f"florence2: {'the plot' if path is plot else 'the result'} is in {file.name}")
