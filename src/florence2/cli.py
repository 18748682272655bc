"""The command line: each command is a few lines that call a room.

Nothing heavy is imported before a command needs it, so that help is there at once. Answers go to standard output, one clear
line for every error to standard error. Exit codes: 0, 2 for a mistake of the user's, 1 for everything else and when some
of several images failed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2 import __version__
from florence2.errors import DatasetError, Florence2Error, InvalidRegion, InvalidRequest, ModelNotFound
from florence2.server.command import serve
from florence2.training.command import evaluate, train

if TYPE_CHECKING:
    from florence2.engine.engine import Engine
    from florence2.results import Result

DEFAULT_MODEL = "florence-2-demo"
IMAGES_AHEAD = 8  # decoded and queued before the oldest answer is printed

# Without rich, help is plain text and comes in half the time.
app = typer.Typer(
    name="florence2",
    help="Florence-2 on your own machines: captions, boxes, masks and text of images.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``arguments`` are those of the process if left out."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="florence2")
    except Florence2Error as error:
        _complain(error)
        sys.exit(_exit_code(error))


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"florence2 {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What stands before a command."""


@app.command()
def infer(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    prompt: Annotated[str, typer.Option(help='A task such as "<OD>" or "<CAPTION>", or a free text.')],
    model: Annotated[str, typer.Option(help="An alias (see florence2 models), alias@revision, hub id or folder.")] = DEFAULT_MODEL,
    adapter: Annotated[list[str] | None, typer.Option(help="A LoRA adapter to merge: folder or hub id. May be repeated.")] = None,
    text: Annotated[str | None, typer.Option(help="The text of a task that needs one.")] = None,
    region: Annotated[str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="The region of a task that needs one, in pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and line.")] = False,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each image with its answer drawn on it to this folder.")] = None,
    beams: Annotated[int | None, typer.Option(help="Beams of the search; 1 is greedy and fastest. Default: the checkpoint's.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens. Default: the checkpoint's.")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No run of so many tokens comes twice; 0 for long lists. Default: the checkpoint's.")
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Add a score to every object.")] = False,
    allow_unknown_tag: Annotated[bool, typer.Option("--allow-unknown-tag", help="Let a fine-tuned checkpoint's own tag pass.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16, int8 (CPUs only).")] = "auto",
) -> None:
    """Answer a prompt about each of some images."""
    from florence2 import load

    options: dict[str, Any] = {
        "text": text,
        "region": _region(region),
        "num_beams": beams,
        "max_new_tokens": max_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "scores": scores,
        "allow_unknown_tag": allow_unknown_tag,
    }
    _check_prompt(prompt, options)
    drawer = None if draw is None else Drawer(draw)
    failed = None
    with load(model, device=device, precision=precision, adapters=adapter or ()) as engine:
        for path, answer in _answers(engine, images, prompt, options):
            if isinstance(answer, Florence2Error):
                failed = answer
                _complain(answer, path)
            elif drawer is not None:
                drawer.draw(path, answer)
            _print_answer(path, answer, as_json)
    if failed is not None:
        raise typer.Exit(_exit_code(failed) if len(images) == 1 else 1)


@app.command()
def models() -> None:
    """List the known checkpoints, where they come from, and which are on this machine."""
    from florence2.weights import ALIASES

    rows = [("ALIAS", "PARAMETERS", "FROM", "HERE", "")]
    for alias in ALIASES.values():
        source, is_here = alias.repository or "this package", "yes" if _is_here(alias.name, alias.repository) else "no"
        rows.append((alias.name, alias.num_parameters, source, is_here, alias.description))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nAny hub id (owner/name), alias@revision or folder does as well.")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="An alias, alias@revision or hub id.")],
) -> None:
    """Download a checkpoint, so that it is there when it is needed."""
    from florence2.weights import resolve

    print(resolve(name))


app.command()(serve)
app.command()(train)
app.command()(evaluate)


class Drawer:
    """Writes annotated pictures to a folder, no two under one name.

    Raises:
        InvalidRequest: the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"the folder {folder} can't be made: {error.strerror}", field="draw") from error
        self._folder = folder
        self._taken: set[str] = set()

    def draw(self, path: Path, result: Result) -> None:
        """The picture of ``path`` with ``result`` on it, as a PNG of the same name."""
        from florence2.draw import annotate
        from florence2.engine.pixels import read_image

        name, number = path.stem, 1
        while name in self._taken:
            number += 1
            name = f"{path.stem}-{number}"
        self._taken.add(name)
        annotate(read_image(path), result).save(self._folder / f"{name}.png")


def _answers(
    engine: Engine, images: Sequence[Path], prompt: str, options: dict[str, Any]
) -> Iterator[tuple[Path, Result | Florence2Error]]:
    """Each image's answer, or what is wrong with it, in order; some images are under way at once.

    Raises:
        InvalidRequest: a mistake that every image would meet.
    """
    under_way: deque[tuple[Path, Future[Result] | Florence2Error]] = deque()
    for path in images:
        try:
            under_way.append((path, engine.submit(path, prompt, **options)))
        except InvalidRequest as error:
            if error.field not in ("image", "region"):
                raise
            under_way.append((path, error))
        if len(under_way) == IMAGES_AHEAD:
            yield _settled(*under_way.popleft())
    while under_way:
        yield _settled(*under_way.popleft())


def _settled(path: Path, answer: Future[Result] | Florence2Error) -> tuple[Path, Result | Florence2Error]:
    """The answer itself, waited for."""
    if isinstance(answer, Florence2Error):
        return path, answer
    try:
        return path, answer.result()
    except Florence2Error as error:
        return path, error


def _print_answer(path: Path, answer: Result | Florence2Error, as_json: bool) -> None:
    """One line of JSON, or some lines for people; errors have been told already, and only JSON repeats them."""
    if as_json:
        import json

        failed = isinstance(answer, Florence2Error)
        content = {"error": {"code": answer.code, "message": answer.message}} if failed else {"response": answer.to_dict()}
        print(json.dumps({"image": str(path), **content}, ensure_ascii=False), flush=True)
    elif not isinstance(answer, Florence2Error):
        print("\n".join(_lines(path, answer)), flush=True)


def _lines(path: Path, result: Result) -> Iterator[str]:
    """An answer for people."""
    width, height = result.image_size
    cut = ", cut at the token limit" if result.finish_reason == "length" else ""
    yield f"{path} ({width} x {height}) {result.task}{cut}"
    if result.kind == "text":
        yield f"  {result.text}"
        return
    shapes = result.boxes or result.quads or result.polygons
    if not shapes:
        yield "  nothing found"
    for index, shape in enumerate(shapes):
        score = "" if result.scores is None else f"  {result.scores[index]:.3f}"
        label = result.labels[index] if index < len(result.labels) else ""
        yield f"  {label or '-'}{score}  {shape}"


def _check_prompt(prompt: str, options: dict[str, Any]) -> None:
    """Refuse a wrong prompt before a model is loaded; whether a region fits is seen with each image."""
    from florence2.tasks import build_prompt

    endless = (10**9, 10**9)
    build_prompt(prompt, text=options["text"], region=options["region"], image_size=endless, allow_unknown_tag=options["allow_unknown_tag"])


def _region(words: str | None) -> tuple[float, ...] | str | None:
    """Four numbers, or location tokens as they are."""
    if words is None or words.lstrip().startswith("<loc_"):
        return words
    try:
        x1, y1, x2, y2 = (float(word) for word in words.split(","))
    except ValueError:
        raise InvalidRegion(f"--region takes four numbers x1,y1,x2,y2 in pixels, got {words!r}", field="region") from None
    return x1, y1, x2, y2


def _is_here(name: str, repository: str | None) -> bool:
    """Whether a checkpoint needs no download."""
    from florence2.weights import resolve

    if repository is None:
        try:
            return bool(resolve(name))
        except ModelNotFound:
            return False
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the engine nothing has been downloaded for it
        return False
    from florence2.weights.hub import is_complete

    config = try_to_load_from_cache(repository, "config.json")
    return isinstance(config, str) and is_complete(Path(config).parent)


def _complain(error: Florence2Error, path: Path | None = None) -> None:
    """One line on standard error; a data set has one for each thing that is wrong with it."""
    for line in error.message.splitlines() if isinstance(error, DatasetError) else [" ".join(error.message.split())]:
        subject = "" if path is None or str(path) in line else f"{path}: "
        print(f"florence2: {subject}{line}", file=sys.stderr, flush=True)


def _exit_code(error: Florence2Error) -> int:
    """2 for what the user can mend in the command, 1 for the rest."""
    return 2 if isinstance(error, (InvalidRequest, ModelNotFound)) else 1


if __name__ == "__main__":
    main()
