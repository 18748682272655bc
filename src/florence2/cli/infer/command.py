"""``florence2 infer``: some questions about each of some images, the answers in their order, and drawings of them.

In: images, questions and options as words. Out: lines for people or JSON on standard output, pictures in a folder; what is wrong with one
image is one line on standard error, and the others go on. No model is loaded before there is a picture to ask about, and nothing heavy is
imported before the command runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from florence2.cli.options import Adapter, Device, Model, Precision, chosen_model
from florence2.console import notify
from florence2.errors import InvalidImage
from florence2.extras import requires
from florence2.tasks.table import TASKS
from florence2.weights.aliases import DEMO

if TYPE_CHECKING:
    from florence2.cli.infer.questions import Question
    from florence2.cli.infer.report import Report
    from florence2.engine.engine import Engine
    from florence2.inputs.input import Input
    from florence2.inputs.pictures import Picture
    from florence2.inputs.selection import Selection

_ORDER = "florence2.order"


class InOrder(TyperCommand):
    """A command that knows in which order its options were given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words, and note which parameter each belongs to."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)


def task_names(incomplete: str) -> list[tuple[str, str]]:
    """The tasks that begin so, for the shell."""
    plain = incomplete.lower().replace("_", "-").strip("<>")
    return [(task.name, task.template) for task in TASKS.values() if task.name.startswith(plain)]


def infer(
    context: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns, URLs, data URIs, - for standard input, @FILE for a list."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", metavar="TASK", help="A task: od, caption, … (listed below). May be repeated.", autocompletion=task_names
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", metavar="PROMPT", help='A tag such as "<OD>", or a free text. May be repeated.')
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="The text of a task that needs one. Several are a question each.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option("--region", "-r", metavar="X1,Y1,X2,Y2", help="The region of a task that needs one, in pixels. May be repeated, too."),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", "-l", metavar="FILE", help="A list of images, one a line or parted by NUL; - for standard input."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a list that is a table (CSV, TSV, JSONL, Parquet) the column.")
    ] = None,
    pages: Annotated[
        str | None, typer.Option(metavar="PAGES", help="Pages: 1-3,7 or all. Default: all of a PDF, the first of a TIFF.")
    ] = None,
    frames: Annotated[str, typer.Option(metavar="first|all", help="Frames of animated files; all: of videos, too.")] = "first",
    every: Annotated[str | None, typer.Option(metavar="STEP", help="Of a video a frame every 2s or 30f. Default: every second.")] = None,
    model: Model = None,
    adapter: Adapter = None,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="Print one JSON object per image and question, one a line.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print each answer while it is generated.")] = False,
    draw: Annotated[
        Path | None, typer.Option("--draw", "-D", metavar="DIR", help="Write each image with its answer drawn on it to this folder.")
    ] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", "-b", help="Beams of the search; 1 is greedy and fastest. Default: the checkpoint's.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens. Default: the checkpoint's.")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No run of so many tokens comes twice; 0 for long lists. Default: the checkpoint's.")
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", "-s", help="Add a score to every object.")] = False,
    tiles: Annotated[
        str | None,
        typer.Option(
            metavar="CxR|SIDE", help='Ask about overlapping tiles, too, for small things: a grid ("2x2") or the side of a tile in pixels.'
        ),
    ] = None,
    tile_overlap: Annotated[
        float | None, typer.Option(help="Share of a tile that its neighbour shows, too; default 0.2, at most 0.5.")
    ] = None,
    tiles_only: Annotated[bool, typer.Option("--tiles-only", help="Do not ask about the whole picture besides.")] = False,
    allow_unknown_tag: Annotated[
        bool,
        typer.Option("--allow-unknown-tag", help="Take a prompt as it is: a fine-tuned checkpoint's own tag, a tag's name as words."),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Ask one or several questions about each of some images."""
    from florence2.cli.infer.answers import answer_all
    from florence2.cli.infer.drawings import Drawer
    from florence2.cli.infer.questions import hints, read_questions, tiles_for
    from florence2.cli.infer.report import Report
    from florence2.cli.infer.streaming import stream_all
    from florence2.inputs.find import find_inputs
    from florence2.inputs.selection import Selection

    selection = Selection(pages, frames, every)
    ordered = _in_order(context.meta[_ORDER], task or [], prompt or [])
    questions = read_questions(ordered, text or [], region or [], allow_unknown_tag=allow_unknown_tag)
    cut = tiles_for(questions, tiles, tile_overlap, tiles_only, stream=stream, allow_unknown_tag=allow_unknown_tag)
    for hint in hints(questions):
        notify(f"florence2: {hint}")
    inputs = find_inputs(images or [], lists or [], lambda line: notify(f"florence2: {line}"), column=column)
    report = Report(None if draw is None else Drawer(draw), as_json=as_json, model=model or DEMO)
    report.refused(inputs)
    search = {"num_beams": beams, "max_new_tokens": max_new_tokens, "no_repeat_ngram_size": no_repeat_ngram_size}
    request = {**search, "scores": scores, "allow_unknown_tag": allow_unknown_tag, **({} if cut is None else {"tiles": cut})}
    if (pictures := _from_first_picture(inputs, selection, questions, report)) is not None:
        total = len(inputs) if all(selection.is_one(given) for given in inputs) else None
        with _loaded(model, search, device=device, precision=precision, adapters=adapter or ()) as engine, report.progress(total):
            if stream:
                for streamed in stream_all(engine, pictures, questions, request):
                    report.streamed(streamed, questions)
            else:
                for answered in answer_all(engine, pictures, questions, request, keep_pictures=draw is not None):
                    report.answered(answered)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _in_order(order: Sequence[str], tasks: Sequence[str], prompts: Sequence[str]) -> list[tuple[str, str]]:
    """Tasks and prompts as they stood on the command line."""
    values = {"task": iter(tasks), "prompt": iter(prompts)}
    return [(name, next(values[name])) for name in order if name in values]


def _from_first_picture(
    inputs: Sequence[Input], selection: Selection, questions: Sequence[Question], report: Report
) -> Iterator[Future[Picture]] | None:
    """The pictures, read ahead, from the first readable one on; those before it are reported. None if there is none."""
    from florence2.cli.infer.answers import without_picture
    from florence2.inputs.pictures import read_pictures

    readings = read_pictures(inputs, selection)
    for reading in readings:
        image, content = reading.result()
        if not isinstance(content, InvalidImage):
            return chain([reading], readings)
        report.answered(without_picture(image, content, questions))
    return None


def _loaded(model: str | None, search: dict[str, Any], **options: Any) -> Engine:
    """The model, unless the search can't be so.

    Raises:
        Florence2Error: what is wrong with model or options.
    """
    with requires("engine", "florence2 infer"):
        from florence2.engine.engine import load
        from florence2.request_options import check_generation

    check_generation(**search)
    return load(chosen_model(model), **options)
