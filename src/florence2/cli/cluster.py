"""``florence2 cluster``: the server on Ray Serve, beyond one machine.

Nothing of the server or of Ray is imported before a command runs, so that the command line can know it at no cost.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from florence2.cli.options import DEVICES, PRECISIONS, model_option, one_of
from florence2.cli.stopping import stopped_softly
from florence2.cli.tables import aligned
from florence2.console import json_line, notify, report, shown
from florence2.errors import InvalidOption
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.cluster.serving import Report

Address = Annotated[str, typer.Option(metavar="ADDRESS", help="A Ray cluster that runs: auto, HOST:PORT or ray://HOST:PORT.")]


def serve(
    model: Annotated[
        list[str] | None,
        model_option("Loaded before the server is ready: alias, hub id, folder, NAME=FOLDER or NAME=BASE+ADAPTER. May be repeated."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Ray cluster that runs: auto, HOST:PORT or ray://HOST:PORT. Default: start one here."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="A file such as cluster.yaml.")] = None,
    engines: Annotated[
        str | None, typer.Option(metavar="N or MIN-MAX", help="Replicas with engines, such as 2, 1-4 or 0-8. Default: 1.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(metavar="N", help="Processor cores for each of them. Default: 1.")] = None,
    gpus: Annotated[float | None, typer.Option(metavar="N", help="GPUs for each of them. Default: 0.")] = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="The address to listen on. Default: 127.0.0.1; with --address 0.0.0.0.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-P", help="The port to listen on. Default: 9001.")] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Keys with limits, and usage. Default: what florence2 keys has made, if it is there.")
    ] = None,
    api_keys_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys that are accepted, one a line.")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Start without keys although other machines can reach the address.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda.", autocompletion=DEVICES)] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="auto, fp32, bf16, fp16, int8 (CPUs only).", autocompletion=PRECISIONS)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning, error.", autocompletion=one_of("debug", "info", "warning", "error"))
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of docs/server.md. May be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait until it is ready.")] = 600.0,
    restart: Annotated[bool, typer.Option("--restart", help="With --address: replace all replicas, although nothing has changed.")] = False,
) -> None:
    """Serve models with engines on many machines."""
    with requires("cluster", "florence2 cluster serve"):
        from florence2.cluster.commands import Flags, serve_at, serve_here
        from florence2.server.settings import parse_assignments

    given = {"model": model, "host": host, "port": port, "database": database, "api_keys_file": api_keys_file, "device": device}
    given |= {"precision": precision, "log_level": log_level, "allow_anonymous": allow_anonymous}
    settings = {**parse_assignments(set_ or ()), **{name: value for name, value in given.items() if value is not None}}
    flags = Flags(config, settings, _number_of(engines), cpus, gpus)
    if address is not None:
        serve_at(address, flags, timeout, lambda url: print(f"serving at {url}", flush=True), is_restart=restart)
        return
    if restart:
        raise InvalidOption("--restart goes with --address", field="restart")
    watched = stopped_softly("florence2: stopping; requests under way are answered (Ctrl-C again: at once)")
    serve_here(flags, timeout, watched, lambda url: report(f"serving at {url} (Ctrl-C ends it)"))


def status(
    address: Address = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what runs on a cluster; 1 unless all is well."""
    with requires("cluster", "florence2 cluster status"):
        from florence2.cluster.commands import status_at
    found = status_at(address)
    if as_json:
        print(json_line(found.to_dict()), flush=True)
    else:
        for line in _lines_of(found):
            print(shown(line), flush=True)
    if found.status != "RUNNING":
        raise typer.Exit(1)


def stop(
    address: Address = "auto",
    is_all: Annotated[bool, typer.Option("--all", help="End Ray Serve as well, with all other applications on it.")] = False,
) -> None:
    """End what serves on a cluster, with no request lost."""
    with requires("cluster", "florence2 cluster stop"):
        from florence2.cluster.commands import stop_at
    was_there = stop_at(address, is_all=is_all)
    notify(f"florence2: {'stopped' if was_there else 'nothing to stop: the application is not there'}")


def _number_of(text: str | None) -> tuple[int, int] | None:
    """The fewest and the most: ``2``, ``1-4``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text.strip())
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most or most < 1:
        raise InvalidOption(f"--engines is a number or two, such as 2 or 1-4, got {text!r}", field="engines")
    return fewest, most


def _lines_of(found: Report) -> list[str]:
    """What ``status`` prints."""
    room = ", ".join(f"{found.free[name]:g} of {number:g} {name}s free" for name, number in found.resources.items() if number)
    nodes = f"{found.nodes} node{'s' * (found.nodes != 1)}{f', {room}' if room else ''}"
    if found.url is None:
        return [nodes, "Ray Serve does not run; florence2 cluster serve --address … starts it"]
    others = [f"other applications: {', '.join(found.others)}"] if found.others else []
    if found.status is None:
        return [nodes, f"Ray Serve runs at {found.url}, without this application", *others]
    rows = [("REPLICAS", "WANTED", "STATES", "")]
    for name, one in found.replicas.items():
        states = ", ".join(f"{number} {state.lower()}" for state, number in one.states.items()) or "none"
        rows.append((name, "?" if one.wanted is None else str(one.wanted), states, one.message))
    message = f": {found.message}" if found.message else ""
    return [nodes, f"{found.status.lower()} at {found.url}{message}", *(line.rstrip() for line in aligned(rows)), *others]
