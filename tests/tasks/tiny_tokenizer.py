"""A byte-level tokenizer of a few hundred tokens, in every layout that checkpoints come in."""

from __future__ import annotations

import json
from pathlib import Path

from florence2.tasks.tokenizer import _byte_alphabet
from florence2.tasks.vocabulary import ADDED_TOKENS

FRAME = ("<s>", "<pad>", "</s>", "<unk>")
_MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("i", "n"), ("ì", "ķ"), ("Ġ", "Ġ"), ("Ã", "©"))


def base_vocabulary() -> dict[str, int]:
    tokens = [*FRAME, *sorted(_byte_alphabet()), *("".join(pair) for pair in _MERGES), "<mask>"]
    return {token: index for index, token in enumerate(tokens)}


def _special(content: str, index: int) -> dict:
    flags = {"single_word": False, "lstrip": content == "<mask>", "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": content, **flags}


def tokenizer_json(added: tuple[str, ...] = ADDED_TOKENS, **changes: object) -> dict:
    """What stands in ``tokenizer.json``; by default with all tokens, as in native checkpoints."""
    vocabulary = base_vocabulary()
    special = [_special(token, vocabulary[token]) for token in (*FRAME, "<mask>")]
    special += [_special(token, len(vocabulary) + index) for index, token in enumerate(added)]
    table = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", 2],
            "cls": ["<s>", 0],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [list(pair) for pair in _MERGES]},
    }
    return {**table, **changes}


def write_tokenizer_json(folder: Path, table: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json() if table is None else table), encoding="utf-8")
    return folder


def write_bart_files(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(base_vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, _MERGES)) + "\n", encoding="utf-8")
    return folder
