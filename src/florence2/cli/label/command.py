"""``florence2 label``: options into a labelling run, or into outputs that are built anew of one that is there.

In: pictures, questions and options as words. Out: a folder, and a summary on standard output. Nothing heavy is imported before the command
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.infer.command import task_names
from florence2.cli.label.report import counted, print_summary
from florence2.cli.label.words import changed_options, read_options
from florence2.cli.options import Adapter, Device, Model, Precision, one_of
from florence2.cli.stopping import stopped_softly
from florence2.cli.wrong_usage import WrongUsage
from florence2.console import INTERRUPTED, notify, report, shown
from florence2.errors import EngineClosed, Florence2Error, InvalidOption

if TYPE_CHECKING:
    from florence2.cluster.labelling import StoredSummary
    from florence2.labelling.run import LabelSummary

FORMATS = ("coco", "yolo", "voc", "label-studio", "cvat", "jsonl", "parquet", "csv", "sidecar", "webdataset")
_CAPTIONS = ("caption", "detailed-caption", "more-detailed-caption")
_STOPPING = "stopping after the pictures under way; once more stops at once and loses those"


def label(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Folders (with all below them), files, patterns, URLs, PDF files, videos, - for standard input, @FILE for a list. "
            "The folder of a run alone, without --output: its outputs are built anew, and nothing is asked.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="The run's folder: new, empty, or that of the same run; with --ray also s3://…"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", metavar="TASK", help="A task: od, caption, ocr-with-region, … May be repeated.", autocompletion=task_names
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", metavar="TEXT", help="The text of a task that needs one.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--classes", metavar="NAMES", help='What is to be found: "car, traffic light". Ids in this order.')
    ] = None,
    classes_file: Annotated[Path | None, typer.Option("--classes-file", metavar="FILE", help="The same, a name on each line.")] = None,
    phrases_from: Annotated[
        str | None,
        typer.Option(
            "--phrases-from",
            metavar="CAPTION",
            help=f"Find the phrases of a caption: {', '.join(_CAPTIONS)}.",
            autocompletion=one_of(*_CAPTIONS),
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"What is written: {', '.join(FORMATS)}. May be repeated. Default: jsonl.",
            autocompletion=one_of(*FORMATS),
        ),
    ] = None,
    placing: Annotated[
        str | None,
        typer.Option(
            "--images", metavar="HOW", help="link (default), copy, or leave pictures.", autocompletion=one_of("link", "copy", "leave")
        ),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            "--list", "-l", metavar="FILE", help="A list of pictures: lines, CSV, TSV, JSON lines, Parquet; - for standard input."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", metavar="NAME", help="Of tables, the column with paths or URLs.")] = None,
    pages: Annotated[str | None, typer.Option("--pages", metavar="PAGES", help="Of PDF and TIFF files: 1-3,7 or all.")] = None,
    frames: Annotated[
        str, typer.Option("--frames", metavar="WHICH", help="Of animated files: first or all.", autocompletion=one_of("first", "all"))
    ] = "first",
    every: Annotated[str | None, typer.Option("--every", metavar="STEP", help="Of videos, a frame every 2s or 30f. Default: 1s.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many pictures: the first ones that are listed.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="K/N", help="One of N parts, for machines that share a list: 3/16.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with the first picture that can't be labelled.")] = False,
    model: Model = None,
    adapter: Adapter = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="URL", help="Ask a server with /infer/lmm for --model, instead of loading it here.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help="The server's key. Better in the environment: FLORENCE2_API_KEY.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=1000, help="Requests to the server at once. Default: 16.")] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", "-b", help="Beams of the search; 1 is greedy and fastest. Default: the checkpoint's.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens. Default: the checkpoint's.")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No run of so many tokens comes twice; 0 for long lists. Default: the checkpoint's.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option("--tiles", metavar="TILES", help="Ask about tiles, too: a grid (2x2) or the side of a tile in pixels (640)."),
    ] = None,
    tile_overlap: Annotated[
        float | None, typer.Option("--tile-overlap", help="What neighbouring tiles share, as a part of a side.")
    ] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Leave objects below this score out, 0 to 1.")] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option("--class-map", metavar="OLD=NEW", help="Rename a class, or leave it out (OLD=). Several with commas, or a file."),
    ] = None,
    min_size: Annotated[
        str | None, typer.Option("--min-size", metavar="SIZE", help="Leave smaller objects out: pixels, or a part of the side (2%).")
    ] = None,
    suppress_overlaps: Annotated[
        float | None,
        typer.Option("--suppress-overlaps", metavar="IOU", help="Of objects of two classes that overlap so much, keep the likelier."),
    ] = None,
    segments: Annotated[
        bool | None,
        typer.Option(
            "--segments/--no-segments",
            help="Write outlines where a format has a place for them, or boxes alone. Default: outlines; YOLO, where all have one.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[bool | None, typer.Option("--scores", "-s", help="Write scores where a format has a place for them.")] = None,
    val_share: Annotated[float | None, typer.Option("--val-share", help="Share of the pictures for validation. Default: 0.1.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the choice of these. Default: 0.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Write contact sheets of the labelled pictures, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="Print the summary as JSON.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    ray: Annotated[bool, typer.Option("--ray", help="On a cluster, by Ray Data: for millions of pictures. Extra: cluster.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="The Ray cluster: auto, ray://host:10001. Default: Ray starts here.")
    ] = None,
    engines: Annotated[
        int | None, typer.Option("--engines", min=1, help="With --ray, the most engines. Default: one on each GPU, else on each node.")
    ] = None,
) -> None:
    """Label pictures: ask about each, and write a data set."""
    values = {
        "tasks": task,
        "texts": text,
        "phrases_from": phrases_from,
        "num_beams": beams,
        "max_new_tokens": max_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "tiles": tiles,
        "tile_overlap": tile_overlap,
        "formats": formats,
        "images": placing,
        "segments": segments,
        "scores": scores or None,
        "min_score": min_score,
        "min_size": min_size,
        "suppress_overlaps": suppress_overlaps,
        "val_share": val_share,
        "seed": seed,
    }
    named = (classes or (), classes_file, class_map or ())
    run = {
        "model": model,
        "adapters": adapter or (),
        "device": device,
        "precision": precision,
        "engine": engine,
        "api_key": api_key,
        "concurrency": concurrency,
        "column": column,
        "limit": limit,
        "shard": shard,
        "strict": strict,
        **_on_ray(ray, address, engines),
    }
    if output is None:
        asked = {**run, "pages": pages, "frames": None if frames == "first" else frames, "every": every}
        summary = _rebuilt(images or [], lists or [], values, named, preview, asked)
        print_summary(summary, as_json=as_json)
        if summary.num_problems and not summary.num_pictures:
            raise typer.Exit(1)
        return
    from florence2.inputs.selection import Selection

    run |= {"lists": lists or (), "selection": Selection(pages, frames, every), "preview": preview}
    _label(images or [], output, read_options(values, *named), run, as_json=as_json)


def _on_ray(ray: bool, address: str | None, engines: int | None) -> dict[str, Any]:
    """What was given of a cluster.

    Raises:
        InvalidOption: something goes with a cluster, and none is wanted.
    """
    given = {name: value for name, value in {"address": address, "engines": engines}.items() if value is not None}
    for name in given if not ray else ():
        raise InvalidOption(f"{name}= goes with --ray; add that, or leave {name} out", field=name)
    return {"ray": True, **given} if ray else {}


def _labeller(run: dict[str, Any]) -> Callable[..., LabelSummary | StoredSummary]:
    """What labels: on this machine, or on a cluster.

    Raises:
        InvalidOption: an option that does not go with a cluster.
    """
    if not run.pop("ray", False):
        from florence2.labelling.run import label as label_all

        return label_all
    if run.pop("shard") is not None:
        raise InvalidOption("shard= is for commands that share a list, and --ray shares it among all nodes; leave it out", field="shard")
    from florence2.cluster.labelling import label_on_ray

    return label_on_ray


def _label(images: Sequence[str], output: str, options: Any, run: dict[str, Any], *, as_json: bool) -> None:
    """Do the run, and print what came out."""
    from florence2.labelling.answering import ModelGone
    from florence2.labelling.run import BrokenPicture

    label_all = _labeller(run)
    goes_on = f"the same command goes on; florence2 label {shown(output)} writes what is there"
    with stopped_softly(_STOPPING) as stop:
        try:
            with counted() as on_progress:
                summary = label_all(images, output, options, **run, on_progress=on_progress, on_message=_notice, is_to_stop=stop.is_wanted)
        except (OSError, BrokenPicture, EngineClosed, ModelGone):
            if _holds_answers(output):
                notify(f"florence2: what was answered is kept; {goes_on}")
            raise
        except KeyboardInterrupt:
            report(f"florence2: stopped at once; {goes_on}")
            raise typer.Exit(INTERRUPTED) from None
    print_summary(summary, as_json=as_json)
    if stop.is_wanted():
        notify(f"florence2: stopped; {goes_on}" if summary.is_stopped else "florence2: it was done already")
        raise typer.Exit(stop.exit_code)
    if summary.num_problems and not summary.num_pictures:
        raise typer.Exit(1)


def _holds_answers(folder: str) -> bool:
    """Whether a run holds an answer; False where that can't be read."""
    from florence2.labelling.records import answered_in

    try:
        return len(answered_in(folder)) > 0
    except (OSError, Florence2Error):
        return False


def _rebuilt(
    images: Sequence[str], lists: Sequence[str], values: Mapping[str, Any], named: Any, preview: bool, asked: Mapping[str, Any]
) -> LabelSummary:
    """Build the outputs of a run that is there; ``asked`` are the options of asking, none of which goes with that."""
    from florence2.labelling.journal import is_run
    from florence2.labelling.outputs import options_in
    from florence2.labelling.run import rebuild

    if len(images) != 1 or lists or not is_run(Path(images[0])):
        raise WrongUsage("--output is missing: the folder for what is written; see florence2 label --help", field="output")
    folder = Path(images[0])
    for name, value in asked.items():
        if value not in (None, (), False, "auto"):
            flag = {"adapters": "adapter"}.get(name, name)
            raise InvalidOption(
                f"{flag}= is about asking, and of the folder of a run alone nothing is asked; leave it out, or name pictures and --output",
                field=flag,
            )
    options = changed_options(options_in(folder), values, *named)
    are = "is" if len(options.formats) == 1 else "are"
    notify(f"florence2: {shown(folder)} holds a run; {', '.join(options.formats)} {are} built of it, and nothing is asked")
    return rebuild(folder, options, preview=preview, on_message=_notice)


def _notice(line: str) -> None:
    notify(f"florence2: {line}")
