"""``florence2 infer``: a prompt about each of some images, the answers in their order, and drawings of them.

In: paths, a prompt and options. Out: lines for people or JSON on standard output, pictures in a folder; what is wrong with one image is
one line on standard error, and the others go on. Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from florence2.console import complain, exit_code, json_line, name_of, shown
from florence2.errors import Florence2Error, InvalidImage, InvalidRegion, InvalidRequest, OutOfMemory
from florence2.flags import Adapter, Device, Model, Precision, chosen_model
from florence2.outputs import NewFiles

if TYPE_CHECKING:
    from PIL import Image

    from florence2.engine.engine import Engine
    from florence2.results import Result

IMAGES_AHEAD = 8  # decoded and queued before the oldest answer is printed


def infer(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help='A task such as "<OD>" or "<CAPTION>", or a free text.')],
    model: Model = None,
    adapter: Adapter = None,
    text: Annotated[str | None, typer.Option(help="The text of a task that needs one.")] = None,
    region: Annotated[str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="The region of a task that needs one, in pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and line.")] = False,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each image with its answer drawn on it to this folder.")] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", "-b", help="Beams of the search; 1 is greedy and fastest. Default: the checkpoint's.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens. Default: the checkpoint's.")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No run of so many tokens comes twice; 0 for long lists. Default: the checkpoint's.")
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Add a score to every object.")] = False,
    allow_unknown_tag: Annotated[bool, typer.Option("--allow-unknown-tag", help="Let a fine-tuned checkpoint's own tag pass.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
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
    failed: Florence2Error | None = None
    with load(chosen_model(model), device=device, precision=precision, adapters=adapter or ()) as engine:
        for path, picture, answer in _answers(engine, images, prompt, options, keep_pictures=drawer is not None):
            drawing = None
            if isinstance(answer, Florence2Error):
                failed = _told(answer, path)
            elif drawer is not None and picture is not None:
                try:
                    drawing = drawer.draw(path, picture, answer)
                except (OSError, MemoryError) as error:
                    failed = _told(NotDrawn(f"{shown(path)}: no drawing in {shown(draw)}: {_reason(error)}"), path)
            _print_answer(path, answer, drawing, as_json)
    if failed is not None:
        raise typer.Exit(exit_code(failed) if len(images) == 1 else 1)


class NotDrawn(Florence2Error):
    """An answer that could not be drawn."""

    code = "not_drawn"


class Drawer:
    """Writes annotated pictures to a folder, none of them over anything.

    Raises:
        InvalidRequest: the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"the folder {folder} can't be made: {error.strerror}", field="draw") from error
        self._files = NewFiles(folder)

    def draw(self, path: Path, picture: Image.Image, result: Result) -> Path:
        """The picture of ``path`` with ``result`` on it, as a new PNG that is named after both; gives back the PNG's path.

        Raises:
            OSError: it can't be written.
        """
        from florence2.draw import annotate

        words = re.findall(r"[^\W_]+", result.task.lower())
        with self._files.create(path.stem, ".png", f"-{'-'.join(words)[:40].rstrip('-') or 'answer'}") as file:
            annotate(picture, result).save(file, "PNG")
        return Path(file.name)


class Answered(NamedTuple):
    """One image's answer, or what is wrong with it; and its picture, where it is wanted."""

    path: Path
    picture: Image.Image | None
    answer: Result | Florence2Error


def _answers(engine: Engine, images: Sequence[Path], prompt: str, options: dict[str, Any], *, keep_pictures: bool) -> Iterator[Answered]:
    """Each image's answer in order; some images are under way at once.

    Raises:
        InvalidRequest: a mistake that every image would meet.
    """
    under_way: deque[tuple[Path, Image.Image | None, Future[Result] | Florence2Error]] = deque()
    for path in images:
        try:
            picture = _read(path)  # once: a pipe can't be read again for its drawing
            under_way.append((path, picture if keep_pictures else None, engine.submit(picture, prompt, **options)))
        except InvalidRequest as error:
            if error.field not in ("image", "region"):
                raise
            under_way.append((path, None, error))
        if len(under_way) == IMAGES_AHEAD:
            yield _settled(*under_way.popleft())
    while under_way:
        yield _settled(*under_way.popleft())


def _read(path: Path) -> Image.Image:
    """The picture in a file.

    Raises:
        InvalidImage: there is none, for whatever reason.
    """
    from florence2.images import read_image

    try:
        return read_image(path)
    except OutOfMemory as error:
        raise InvalidImage(f"{shown(path)} can't be read: {error.message}", field="image") from error
    except (OSError, MemoryError) as error:
        raise InvalidImage(f"{shown(path)} can't be read: {_reason(error)}", field="image") from error


def _settled(path: Path, picture: Image.Image | None, answer: Future[Result] | Florence2Error) -> Answered:
    """The answer itself, waited for."""
    if isinstance(answer, Florence2Error):
        return Answered(path, picture, answer)
    try:
        return Answered(path, picture, answer.result())
    except Florence2Error as error:
        return Answered(path, picture, error)


def _told(error: Florence2Error, path: Path) -> Florence2Error:
    complain(error, path)
    return error


def _reason(error: OSError | MemoryError) -> str:
    return "out of memory" if isinstance(error, MemoryError) else error.strerror or str(error)


def _print_answer(path: Path, answer: Result | Florence2Error, drawing: Path | None, as_json: bool) -> None:
    """One line of JSON, or some lines for people; errors have been told already, and only JSON repeats them."""
    if as_json:
        failed = isinstance(answer, Florence2Error)
        content = {"error": {"code": answer.code, "message": answer.message}} if failed else {"response": answer.to_dict()}
        drawn = {} if drawing is None else {"drawing": name_of(drawing)}
        print(json_line({"image": name_of(path), **content, **drawn}), flush=True)
    elif not isinstance(answer, Florence2Error):
        drawn = () if drawing is None else (f"  drawn: {drawing}",)
        print("\n".join(shown(line) for line in (*_lines(path, answer), *drawn)), flush=True)


def _lines(path: Path, result: Result) -> Iterator[str]:
    """An answer for people."""
    width, height = result.image_size
    cut = ", cut at the token limit" if result.finish_reason == "length" else ""
    yield f"{path} ({width} x {height}) {result.task}{cut}"
    if result.kind == "text":
        yield from (f"  {line}" for line in result.text.split("\n"))
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
