"""The generated tables of README.md in Korean, for README.ko.md.

In: a table as Markdown, in English. Out: the same with its words translated; code and numbers stay. A word without a translation is an
error, so that a new row of the English table is not left out here. Knows nothing of what the tables say.
"""

from __future__ import annotations

import re

WORDS = {
    "You add": "추가로 줄 것",
    "You get": "얻는 것",
    "text": "텍스트",
    "region": "영역",
    "boxes": "박스",
    "quads": "사각형",
    "polygons": "폴리곤",
    "boxes or polygons": "박스 또는 폴리곤",
    "Alias": "별칭",
    "Parameters": "파라미터",
    "Measured": "측정한 것",
    "Speed: one question, 3 beams, 33 tokens": "속도: 질문 하나, 빔 3, 토큰 33",
    "Speed: one question, 3 beams, 128 tokens": "속도: 질문 하나, 빔 3, 토큰 128",
    "Speed: one question, greedy, 33 tokens": "속도: 질문 하나, 그리디, 토큰 33",
    "Speed: 16 questions at once, 16 pictures": "속도: 질문 16개 동시, 이미지 16장",
    "Speed: five questions on one picture": "속도: 이미지 한 장에 질문 다섯",
    "Logits, largest difference, fp32": "로짓의 최대 차이, fp32",
    "The server adds to a request": "서버가 요청에 더하는 시간",
    "Small model: boxes, AP at IoU 0.5": "작은 모델: 박스, IoU 0.5의 AP",
    "Small model: words read": "작은 모델: 읽은 단어",
}
_PATTERNS = (
    (r"under (\d+ M)", r"\1 미만"),
    (r"([\d.]+) x", r"\1배"),
    (
        r"Speed: times faster than `transformers` in bf16, ours in (\w+), two processor cores\.",
        r"속도: bf16으로 실행한 `transformers`보다 빠른 배수. 이 프로젝트는 \1, 프로세서 코어 두 개.",
    ),
    (
        r"On two cores with AVX2 alone, `int8` is ([\d.]+) to ([\d.]+) times faster than `transformers` in fp32\.",
        r"AVX2만 있는 코어 두 개에서는 `int8`이 fp32의 `transformers`보다 \1배에서 \2배 빠릅니다.",
    ),
)
_WORDLESS = re.compile(r"(?:`[^`]*`|[\d.,e%:-]+|\d+ (?:M|ms)|\s)*")


def korean(block: str) -> str:
    """A generated block with its words in Korean.

    Raises:
        KeyError: a word that has no translation here.
    """
    return "\n".join(_line(line) for line in block.splitlines())


def _line(line: str) -> str:
    if not line.startswith("|"):
        return _word(line)
    return "|".join(f" {_word(cell.strip())} " if cell.strip() else cell for cell in line.split("|"))


def _word(text: str) -> str:
    """The translation of a cell or sentence."""
    if _WORDLESS.fullmatch(text):
        return text
    for pattern, words in _PATTERNS:
        if re.fullmatch(pattern, text):
            return re.sub(pattern, words, text)
    if text not in WORDS:
        raise KeyError(f"docs/korean.py has no translation of {text!r}")
    return WORDS[text]
