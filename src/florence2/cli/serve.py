"""``florence2 serve``: flags into settings, settings into a running server.

Nothing of the server is imported before the command runs, so that the command line can know it at no cost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from florence2.cli.options import DEVICES, PRECISIONS, model_option, one_of
from florence2.console import notify, reporting
from florence2.errors import InvalidOption
from florence2.extras import requires


def serve(
    model: Annotated[
        list[str] | None,
        model_option("Loaded before the server is ready: alias, hub id, folder, NAME=FOLDER or NAME=BASE+ADAPTER. May be repeated."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            metavar="ADAPTER",
            help="A LoRA adapter to merge into the model, or NAME=ADAPTER into one of several. May be repeated.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Defaults to start from: local, dedicated or hosted.", autocompletion=one_of("local", "dedicated", "hosted")),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="The address to listen on. Default: 127.0.0.1, or the profile's.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-P", help="The port to listen on. Default: 9001.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="A TOML file with settings.")] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Keys with limits, and usage. Default: what florence2 keys has made, if it is there.")
    ] = None,
    api_keys_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys that are accepted, one a line.")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Start without keys although other machines can reach the address.")
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="The path below which a proxy offers the server, such as /florence2.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0, mps.", autocompletion=DEVICES)] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="auto, fp32, bf16, fp16, int8 (CPUs only).", autocompletion=PRECISIONS)
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            help="debug, info, warning, error. Default: info; warning with --quiet, debug with --verbose.",
            autocompletion=one_of("debug", "info", "warning", "error"),
        ),
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json/--log-text", help="One JSON object a line, or text for people.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of docs/server.md. May be repeated.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Load, answer one image per task, report, and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: the report as JSON.")] = False,
) -> None:
    """Serve models over HTTP, a drop-in for Roboflow's /infer/lmm."""
    with requires("server", "florence2 serve"):
        from florence2.server import create_app
        from florence2.server.accounts.location import default_database, has_default_database
        from florence2.server.http.logs import set_up
        from florence2.server.http.process import serve as run
        from florence2.server.self_check import run_check
        from florence2.server.settings import parse_assignments, read_settings, where
        from florence2.server.settings_report import differing, notices

    flags: dict[str, Any] = {
        **parse_assignments(set_ or ()),
        **_given(model=model, adapter=adapter, profile=profile, host=host, port=port, config=config, api_keys_file=api_keys_file),
        **_given(root_path=root_path, device=device, precision=precision, database=database, log_level=log_level, log_json=log_json),
        **_given(allow_anonymous=allow_anonymous),
    }
    is_found = where("database", flags) is None and has_default_database()
    if is_found:
        flags["database"] = default_database()
    settings = read_settings(flags)
    changed = differing(settings, flags)
    if "log_level" not in settings.model_fields_set and (reporting.is_quiet or reporting.is_verbose):
        settings = settings.model_copy(update={"log_level": "warning" if reporting.is_quiet else "debug"})
    if as_json and not check:
        raise InvalidOption("--json goes with --check; the log is JSON with --log-json", field="as_json")
    # A report stands alone: what the log would say of a failure is in it.
    set_up("critical" if check and not reporting.is_verbose else settings.log_level, settings.log_json)
    unread = notices(os.environ, settings)
    if check:
        run_check(settings, changed, unread, as_json=as_json)
        return
    if is_found:
        unread = [*unread, f"every request needs a key, as florence2 keys has made {default_database()}; --database none serves without"]
    for line in unread:
        notify(f"florence2: {line}")
    run(settings, create_app)


def _given(**flags: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}
