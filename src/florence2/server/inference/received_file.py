"""The image files of a request: as they were sent or fetched, then with their structure read; and what of them counts as held.

In: an image of a request, and what its ``fetch`` gave. Out: its file. Knows nothing of engines and prompts.
"""

from __future__ import annotations

from florence2.image_files import Structure
from florence2.server.inference.decoding import check_pixels
from florence2.server.inference.request import ImageSource, InferenceRequest

SMALL_BYTES = 2**17
"""Up to here the structure of a file is read in the event loop: a quarter of a millisecond."""


class ReceivedFile:
    """One image of a request: what was fetched, and in its place the file once that was read.

    Args:
        image: the image.
        fetched: what its ``fetch`` returned.
        max_pixels: the most pixels it may have.
    """

    def __init__(self, image: ImageSource, fetched: object, max_pixels: int) -> None:
        self._image = image
        self._fetched = fetched
        self._max_pixels = max_pixels
        self._structure: Structure | None = None

    def read(self) -> Structure:
        """The file. Runs in a thread of the pool; for a second engine nothing is read again."""
        if self._structure is None:
            structure = self._image.read(self._fetched)
            if structure.size is not None:
                check_pixels(structure.size, self._max_pixels)
            self._structure, self._fetched = structure, None
        return self._structure

    @property
    def is_small(self) -> bool:
        """Whether reading it takes less than handing it to a thread and back. A file on a disk may take any time."""
        fetched = self._fetched
        return self._image.label != "file" and isinstance(fetched, str | bytes) and len(fetched) <= SMALL_BYTES

    @property
    def num_bytes(self) -> int:
        """How large the file is; 0 as long as it was not read."""
        return 0 if self._structure is None else len(self._structure.data)


class HeldBytes:
    """What a request counts for: its body, what was fetched for it, and only its image files once all of them were read.

    Args:
        request: the request.
    """

    def __init__(self, request: InferenceRequest) -> None:
        self._permit = request.permit
        self._unread = set(range(len(request.images)))
        self._num_bytes = 0

    def note_fetched(self, image: ImageSource, fetched: object) -> None:
        """Note what came from elsewhere.

        Raises:
            Overloaded: there is no room for it.
        """
        if self._permit is not None and image.label == "url" and isinstance(fetched, bytes):
            self._permit.add_bytes(len(fetched))

    def note_read(self, index: int, num_bytes: int) -> None:
        """Note how large the file of one image is; only the first note about it counts."""
        if index not in self._unread:
            return
        self._unread.discard(index)
        self._num_bytes += num_bytes
        if self._permit is not None and not self._unread:
            self._permit.hold_bytes(self._num_bytes)
