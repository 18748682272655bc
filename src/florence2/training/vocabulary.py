"""The small tokenizer of the demo model: bytes, the words of its captions and prompts, and Florence's own tokens.

In: a folder. Out: the tokenizer's three files in it, in the form that every reader of such checkpoints knows: byte-level BPE
in BART's arrangement (`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the bytes and merges, `<mask>`, the 1,024 Florence tokens in
their published order, `<image>`). The merges are learnt from the words that captions, labels and prompts are made of, and from
nothing that is printed on a picture: reading stays spelling. Deterministic; knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from florence2.errors import MissingExtra
from florence2.tasks.vocabulary import ADDED_TOKENS
from florence2.training.backgrounds import TEXTURES, TONES
from florence2.training.palette import COLOURS
from florence2.training.scenes import SIZE_BANDS
from florence2.training.shapes import KINDS

BASE_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK_TOKEN = "<mask>"
IMAGE_TOKEN = "<image>"

_MAX_LENGTH = 1024
_FIRST_WORDS = "What Describe Locate The There a an"
_LATER_WORDS = (
    "does the image describe in detail what is shown with a paragraph text regions objects category name their descriptions "
    "region proposals phrases caption mask polygon of "
    "an and on at top left right middle bottom background empty printed word words picture shows shape shapes "
    "no one two three four five six seven eight"
)


def build_tokenizer(folder: str | Path) -> int:
    """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` and give back the number of tokens.

    Args:
        folder: where the files go; it is made if need be.

    Raises:
        MissingExtra: the `tokenizers` package is not installed.
    """
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    except ImportError as error:
        raise MissingExtra("building a tokenizer needs the tokenizers package: install florence2[train]") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # More than there are words: every word of the text below ends as one token.
        vocab_size=4096,
        min_frequency=1,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in BASE_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_words(), trainer)
    tokenizer.add_special_tokens([AddedToken(MASK_TOKEN, lstrip=True, normalized=False, special=True)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*ADDED_TOKENS, IMAGE_TOKEN)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _settings())
    _write_json(folder / "special_tokens_map.json", {**_roles(), "additional_special_tokens": [*ADDED_TOKENS, IMAGE_TOKEN]})
    return tokenizer.get_vocab_size()


def _words() -> Iterator[str]:
    """Give back the words to learn merges from, as they stand at the start of a line or, after a space, within one."""
    labels = [*COLOURS, *KINDS, *SIZE_BANDS]
    grounds = [*TEXTURES, *" ".join(TONES).split()]
    yield from (*_FIRST_WORDS.split(), *labels)
    yield from (f" {word}" for word in (*_LATER_WORDS.split(), *labels, *grounds))


def _roles() -> dict[str, str]:
    bos, pad, eos, unk = BASE_TOKENS
    return {
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": pad,
        "unk_token": unk,
        "mask_token": MASK_TOKEN,
    }


def _settings() -> dict[str, object]:
    return {
        **_roles(),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _MAX_LENGTH,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "image_token": IMAGE_TOKEN,
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
