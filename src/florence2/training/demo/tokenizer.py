"""The small tokenizer of the demo model: bytes, the words of its captions and prompts, and Florence's own tokens.

In: a folder. Out: the tokenizer's three files in it, in the form that every reader of such checkpoints knows: byte-level BPE
in BART's arrangement (``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then the bytes and merges, ``<mask>``, the 1,024 Florence tokens in
their published order, ``<image>``). The merges are learnt from the words that captions, labels and prompts are made of, and from
nothing that is printed on a picture: reading stays spelling. Deterministic; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from florence2.extras import requires
from florence2.scenes.backgrounds import TEXTURES, TONES
from florence2.scenes.palette import COLOURS
from florence2.scenes.scene import SIZE_BANDS
from florence2.scenes.shapes import KINDS
from florence2.tasks.tokenizer import Tokenizer
from florence2.tasks.vocabulary import ADDED_TOKENS

BASE_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK_TOKEN = "<mask>"

_FIRST_WORDS = "What Describe Locate The There a an"
_LATER_WORDS = (
    "does the image describe in detail what is shown with a paragraph text regions objects category name their descriptions "
    "region proposals phrases caption mask polygon of "
    "an and on at top left right middle bottom background empty printed word words picture shows shape shapes "
    "no one two three four five six seven eight"
)


def build_tokenizer(folder: str | Path) -> int:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` and give back the number of tokens.

    Args:
        folder: where the files go; it is made if need be.

    Raises:
        MissingExtra: the ``tokenizers`` package is not installed.
    """
    with requires("train", "building a tokenizer"):
        from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Backend
    tokenizer = Backend(models.BPE())
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
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ADDED_TOKENS])
    Tokenizer(tokenizer, Path(folder)).save(folder)
    return tokenizer.get_vocab_size() + 1  # with <image>


def _words() -> Iterator[str]:
    """The words to learn merges from, as at the start of a line or, after a space, within one."""
    labels = [*COLOURS, *KINDS, *SIZE_BANDS]
    grounds = [*TEXTURES, *" ".join(TONES).split()]
    yield from (*_FIRST_WORDS.split(), *labels)
    yield from (f" {word}" for word in (*_LATER_WORDS.split(), *labels, *grounds))
