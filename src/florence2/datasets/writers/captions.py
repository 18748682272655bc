"""The one text that stands for a picture where a format has place for one only.

In: a labelled picture. Out: a line of text. Captions come before other answers, those before the names of what was found, and text that
was read in the picture comes last.
"""

from __future__ import annotations

from florence2.datasets.labelled import LabelledPicture

_CAPTIONS = ("<MORE_DETAILED_CAPTION>", "<DETAILED_CAPTION>", "<CAPTION>")


def caption_of(picture: LabelledPicture) -> str:
    """The most detailed caption, else another answer, else the classes of what was found, else the text in the picture; on one line."""
    captions = [picture.texts[prompt] for prompt in _CAPTIONS if picture.texts.get(prompt, "").strip()]
    others = [text for prompt, text in picture.texts.items() if prompt not in (*_CAPTIONS, "<OCR>")]
    classes = ", ".join(dict.fromkeys(found.label for found in picture.objects))
    texts = (*captions, *others, classes, picture.texts.get("<OCR>", ""))
    return " ".join(next((text for text in texts if text.strip()), "").split())
