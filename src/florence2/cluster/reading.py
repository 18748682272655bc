"""Pictures read and resized on the CPUs of a cluster, for engines on other workers.

In: chunks of inputs from the ledger. Out: chunks of pictures, at the model's size where that loses nothing, or with what is wrong with
them. A chunk whose process was lost is read again one input after the other, so that the input that did it is found: it becomes a failed
picture, and the others are read. Knows nothing of questions.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from florence2.cluster.ledger import PICTURE, chunks_of
from florence2.cluster.listing import Listed
from florence2.cluster.remote_files import fetched, is_remote
from florence2.errors import Florence2Error, InvalidImage
from florence2.image_files import PICTURE_NAME, START_BYTES
from florence2.images.resized import ResizedPicture, resized
from florence2.in_flight import read_ahead
from florence2.inputs.input import Input
from florence2.inputs.looking import looked_at, refused, with_start
from florence2.inputs.pictures import Picture, read_pictures
from florence2.inputs.selection import Selection
from florence2.labelling.pixels import file_of
from florence2.labelling.shards import file_and_part

if TYPE_CHECKING:
    import pyarrow
    from PIL import Image

    from florence2.weights.defaults import ImageSettings

MOST_LOST = 2
"""So many processes that a picture may end; then it is a failed one."""
_NUM_AHEAD = 8


class WorkerLost(Florence2Error):
    """A picture that ended the process which worked on it, each time."""

    code = "worker_lost"


class ReadPicture(NamedTuple):
    """A picture on its way to an engine.

    Attributes:
        image: where it came from.
        content: its pixels, or what is wrong with it.
        file: the file that is kept of it in the run's folder; None where there is none.
    """

    image: Input
    content: Image.Image | ResizedPicture | Florence2Error
    file: Path | None


@dataclass(frozen=True)
class Reader:
    """What a worker needs to read pictures.

    Attributes:
        ledger: the run's, an actor.
        selection: which pages and frames of files that hold several.
        settings: of the model's images; None where pictures are not to be resized.
        folder: the run's, where pictures are kept that are no files; None where they are not kept.
    """

    ledger: Any
    selection: Selection = field(default_factory=Selection)
    settings: ImageSettings | None = None
    folder: Path | None = None

    def __call__(self, chunk: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """The pictures of a chunk of inputs, in chunks."""
        import ray

        index, some = opened(chunk)
        num_begun, is_stopped = ray.get(self.ledger.begin.remote(f"read-{index}"))
        if is_stopped:
            return
        left_out: Counter[str] = Counter()
        each = self._together(some, left_out) if num_begun == 1 else self._one_by_one(some, left_out)
        try:
            for number, pictures in enumerate(chunks_of(each)):
                ray.get(self.ledger.read.remote(f"{index}.{number}", len(pictures)))
                yield closed(f"{index}.{number}", pictures)
        except Exception as error:  # a picture can't be kept
            ray.get(self.ledger.fail.remote(error))
            return
        ray.get(self.ledger.read_all.remote(index, len(some), left_out))

    def _together(self, some: Sequence[Listed], left_out: Counter[str]) -> Iterator[ReadPicture]:
        """The pictures of some inputs, of which several are read at the same time."""
        wanted: list[Listed] = []
        for reading in read_ahead(some, _looked_at, num_ahead=_NUM_AHEAD):
            one = reading.result()
            if one.is_of_folder and one.given.error is not None and not _has_picture_name(one.given):
                left_out[one.given.medium] += 1
            else:
                wanted.append(one)
        pictures = read_pictures([one.given for one in wanted], self.selection, skip=self._skip(wanted))
        return (self._finished(reading.result()) for reading in pictures)

    def _one_by_one(self, some: Sequence[Listed], left_out: Counter[str]) -> Iterator[ReadPicture]:
        """The same, one input after the other; those that ended their process too often fail."""
        import ray

        for one in some:
            key = f"{PICTURE}{one.given.id}"
            num_begun, _ = ray.get(self.ledger.begin.remote(key))
            if num_begun > MOST_LOST:
                yield ReadPicture(replace(one.given, content=b""), lost(one.given, "read"), None)
                continue
            yield from self._together([one], left_out)
            ray.get(self.ledger.end.remote(key))

    def _skip(self, wanted: Sequence[Listed]) -> Callable[[str], bool]:
        """What says of a picture of these inputs that it is not wanted."""
        import ray

        ids = {one.given.id: one.ids for one in wanted if one.ids is not None}
        paths = {one.given.id: str(one.given.path) for one in wanted if one.given.kind == "file"}

        def is_unwanted(picture_id: str) -> bool:
            file_id, mark = file_and_part(picture_id)
            if picture_id not in (ids.get(file_id) or (picture_id,)):
                return True
            return bool(mark) and ray.get(self.ledger.is_done.remote(picture_id, paths.get(file_id)))

        return is_unwanted

    def _finished(self, picture: Picture) -> ReadPicture:
        """A picture as it travels.

        Raises:
            OSError: it can't be kept.
        """
        image, content = picture
        image = replace(image, kind="url") if image.kind == "memory" else image
        if isinstance(content, InvalidImage):
            return ReadPicture(_light(image), content, None)
        file = None if self.folder is None else file_of(image, content, self.folder)
        settings = self.settings
        if settings is not None and content.width * content.height > settings.width * settings.height:
            return ReadPicture(_light(image), resized(content, settings), file)
        return ReadPicture(_light(image), content, file)


def lost(image: Input, what: str) -> WorkerLost:
    """What is wrong with a picture that was begun too often.

    Args:
        image: the picture.
        what: what was done to it: read, or asked about.
    """
    return WorkerLost(
        f"{image.shown} could not be {what}: the worker's process ended {MOST_LOST} times while it was at it; it may need more memory than "
        "the node has, or break a decoder"
    )


def closed(key: object, content: object, **more: object) -> pyarrow.Table:
    """A chunk as the only row of a block, which Ray then neither joins with others nor cuts."""
    import pyarrow as pa

    columns = {"key": [key], "content": pa.array([pickle.dumps(content, protocol=5)], pa.large_binary())}
    return pa.table(columns | {name: [value] for name, value in more.items()})


def opened(chunk: pyarrow.Table) -> tuple[Any, Any]:
    """The key and the content of a chunk."""
    content = chunk["content"][0].as_buffer()
    return chunk["key"][0].as_py(), pickle.loads(content)  # nosec B301 # written by a task of the same run


def _looked_at(one: Listed) -> Listed:
    """An input with what is wrong with its first bytes; of what lies in an object store with its content."""
    given = one.given
    if given.error is not None:
        return one
    if given.kind == "file":
        if one.is_of_folder and given.path.exists() and not given.path.is_file():  # a pipe, which may never end
            return replace(one, given=refused(given, "it is no file"))
        return replace(one, given=looked_at(given))
    if not is_remote(given):
        return one
    try:
        if one.is_of_folder and not _has_picture_name(given):
            given = with_start(given, fetched(given, START_BYTES))
        if given.error is None:
            content = fetched(given)
            given = with_start(replace(given, kind="memory", content=content), content[:START_BYTES])
    except InvalidImage as error:
        given = replace(given, error=error)
    return replace(one, given=given)


def _has_picture_name(given: Input) -> bool:
    return PICTURE_NAME.search(given.name) is not None


def _light(image: Input) -> Input:
    """An input without its content, unless that is its name."""
    return image if image.kind == "stdin" else replace(image, content=b"")
