"""Drawings of answers, in a folder of their own; no file is overwritten.

In: a picture, its answer, and what its name begins with. Out: a new PNG named after both. Knows nothing of where the picture came from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.errors import Florence2Error, InvalidRequest
from florence2.outputs import NewFiles, refuse_url

if TYPE_CHECKING:
    from PIL import Image

    from florence2.results import Result

LONGEST_KIND = 40


class NotDrawn(Florence2Error):
    """An answer that could not be drawn."""

    code = "not_drawn"


class Drawer:
    """Writes annotated pictures to new files in a folder.

    Raises:
        InvalidRequest: the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        refuse_url(folder, "draw")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"the folder {folder} can't be made: {error.strerror}", field="draw") from error
        self._files = NewFiles(folder)

    def draw(self, stem: str, picture: Image.Image, result: Result) -> Path:
        """Draw ``result`` on the picture and write it to a new PNG, whose path is returned.

        Raises:
            OSError: it can't be written.
        """
        from florence2.draw import annotate

        words = re.findall(r"[^\W_]+", result.task.lower())
        with self._files.create(stem, ".png", f"-{'-'.join(words)[:LONGEST_KIND].rstrip('-') or 'answer'}") as file:
            annotate(picture, result).save(file, "PNG")
        return Path(file.name)
