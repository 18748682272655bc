"""The tokenizer: text to token ids and back, by the checkpoint's files.

In: a checkpoint folder with ``tokenizer.json``, or with BART's ``vocab.json`` and ``merges.txt``. Out: a ``Tokenizer``, to which
Florence-2's special tokens are added if the files lack them. Knows nothing of tasks or of the network; the ``tokenizers`` library is
imported only when a tokenizer is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.errors import CheckpointError, InvalidPrompt
from florence2.extras import requires
from florence2.location_bins import NUM_BINS
from florence2.outputs import refuse_url
from florence2.tasks.detokenizer import Detokenizer
from florence2.tasks.vocabulary import ADDED_TOKENS, IMAGE_TOKEN, SENTINELS, location_token

if TYPE_CHECKING:
    import tokenizers

_ROLES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "additional_special_tokens": [*ADDED_TOKENS, IMAGE_TOKEN],
}
_SETTINGS = {
    **{role: token for role, token in _ROLES.items() if isinstance(token, str)},
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 1024,
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "image_token": IMAGE_TOKEN,
    "extra_special_tokens": {"image_token": IMAGE_TOKEN},
}


class Tokenizer:
    """A byte-level tokenizer with Florence-2's special tokens; safe to use from several threads.

    Attributes:
        folder: the folder of its files.
        vocab_size: the highest id plus one.
        bos_token_id: the id of ``<s>``.
        eos_token_id: the id of ``</s>``.
        pad_token_id: the id of ``<pad>``.
        image_token_id: the id of ``<image>``; None if the vocabulary does not have it.
        location_ids: the ids of the location tokens by bin; a range if they are consecutive.
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: Path) -> None:
        """Wrap a backend that has all tokens.

        Raises:
            CheckpointError: a special token or a location token is missing.
        """
        vocabulary = backend.get_vocab(with_added_tokens=True)
        required = (*SENTINELS, *(location_token(index) for index in range(NUM_BINS)))
        missing = [token for token in required if token not in vocabulary]
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise CheckpointError(f"{source}: not a Florence-2 tokenizer, it lacks {shown}; fetch the checkpoint's files again")
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._bytes = {index: _token_bytes(token) for token, index in vocabulary.items()}
        self._ids = vocabulary
        self.folder = source.parent
        self.vocab_size = max(self._bytes) + 1
        self.bos_token_id = vocabulary["<s>"]
        self.eos_token_id = vocabulary["</s>"]
        self.pad_token_id = vocabulary["<pad>"]
        self.image_token_id = vocabulary.get(IMAGE_TOKEN)
        self.location_ids = _as_range([vocabulary[location_token(index)] for index in range(NUM_BINS)])

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint folder of either layout.

        Raises:
            CheckpointError: a tokenizer file is missing, damaged or of another model family; the message names it.
            MissingExtra: the ``tokenizers`` library is not installed.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            source = folder / "tokenizer.json"
            backend = _read_tokenizer_json(source)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            source = folder / "vocab.json"
            backend = _read_bart_files(folder)
        else:
            raise CheckpointError(f"{folder}: no tokenizer there; expected tokenizer.json, or vocab.json and merges.txt")
        return cls(backend, source)

    @classmethod
    def from_json(cls, text: str, folder: Path) -> Tokenizer:
        """The tokenizer that ``to_json`` has written, in this process or another.

        Args:
            text: the JSON.
            folder: the folder of its files.
        """
        from tokenizers import Tokenizer as Backend

        return cls(Backend.from_str(text), folder / "tokenizer.json")

    def to_json(self) -> str:
        """The tokenizer as one text."""
        return self._backend.to_str()

    def ids(self) -> dict[str, int]:
        """All tokens with their ids."""
        return dict(self._ids)

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` in the native layout.

        If the vocabulary lacks ``<image>``, it is added as the last token.

        Raises:
            InvalidOption: the folder is a URL.
        """
        refuse_url(folder, "folder")
        from tokenizers import AddedToken, processors
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)])
        frame = ("</s>", self.eos_token_id), ("<s>", self.bos_token_id)
        backend.post_processor = processors.RobertaProcessing(*frame, trim_offsets=True, add_prefix_space=False)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        backend.save(str(folder / "tokenizer.json"))
        for name, content in (("tokenizer_config.json", _SETTINGS), ("special_tokens_map.json", _ROLES)):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def encode(self, sentence: str) -> list[int]:
        """The ids of the sentence between ``<s>`` and ``</s>``.

        Raises:
            InvalidPrompt: the sentence is not valid Unicode.
        """
        try:
            sentence.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidPrompt("the prompt holds half a surrogate pair, which is no character; send valid Unicode") from None
        return [self.bos_token_id, *self._backend.encode(sentence, add_special_tokens=False).ids, self.eos_token_id]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, which need not be whole characters; none for an id outside the vocabulary."""
        return self._bytes.get(token_id, b"")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, with special tokens and all spaces; ids outside the vocabulary are skipped."""
        return self.decode_with_offsets(ids)[0]

    def decode_with_offsets(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of the ids, and for each id the span (start, end) of its characters, as ``Detokenizer`` has it."""
        detokenizer = Detokenizer()
        pieces = [detokenizer.add(self.token_bytes(index)) for index in ids]
        return "".join([*pieces, detokenizer.end()]), detokenizer.offsets


def _as_range(ids: list[int]) -> Sequence[int]:
    in_a_row = range(ids[0], ids[0] + len(ids))
    return in_a_row if ids == list(in_a_row) else ids


def _import_library() -> None:
    with requires("engine", "tokenizing"):
        import tokenizers  # noqa: F401


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    _import_library()
    from tokenizers import Tokenizer as Backend
    from tokenizers.decoders import ByteLevel

    try:
        backend = Backend.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises a bare Exception for every kind of damage
        raise CheckpointError(f"{path}: damaged or not a tokenizer file ({error}); fetch the checkpoint's files again") from error
    if not isinstance(backend.decoder, ByteLevel):
        raise CheckpointError(f"{path}: expected a byte-level tokenizer as Florence-2 has; its decoder is {backend.decoder}")
    _add_listed_tokens(backend, path.with_name("added_tokens.json"))
    _add_missing_tokens(backend, path)
    return backend


def _read_bart_files(folder: Path) -> tokenizers.Tokenizer:
    _import_library()
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    vocabulary_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    vocabulary = _read_ids(vocabulary_path)
    try:
        merges_path.read_text(encoding="utf-8")
        backend = Backend(models.BPE.from_file(str(vocabulary_path), str(merges_path)))
    except Exception as error:  # the library raises a bare Exception for every kind of damage
        raise CheckpointError(f"{merges_path}: damaged or not of this vocabulary ({error}); fetch the files again") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    frame = [token for token in (*SENTINELS, "<unk>") if token in vocabulary]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in frame])
    if "<mask>" in vocabulary:
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    _add_listed_tokens(backend, folder / "added_tokens.json")
    _add_missing_tokens(backend, vocabulary_path)
    return backend


def _add_listed_tokens(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Add the tokens of ``added_tokens.json``, whose ids must follow those of the vocabulary."""
    if not path.is_file():
        return
    listed = _read_ids(path)
    _add_special(backend, sorted(listed, key=listed.__getitem__))
    for token, index in listed.items():
        if backend.token_to_id(token) != index:
            raise CheckpointError(
                f"{path}: {token} should have id {index}, but the vocabulary before it ends elsewhere "
                f"(it would get {backend.token_to_id(token)}); the tokenizer's files do not belong together"
            )


def _add_missing_tokens(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Add Florence-2's tokens to a plain BART vocabulary; a vocabulary with location tokens is not changed."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if any(location_token(index) in vocabulary for index in range(NUM_BINS)):
        return
    if len(vocabulary) != max(vocabulary.values(), default=-1) + 1:
        raise CheckpointError(f"{path}: the vocabulary's ids have gaps, so the ids of Florence-2's own tokens are not known")
    _add_special(backend, ADDED_TOKENS)


def _add_special(backend: tokenizers.Tokenizer, tokens: Sequence[str]) -> None:
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])


def _read_ids(path: Path) -> dict[str, int]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, no readable JSON ({error}); fetch the checkpoint's files again") from error
    if not isinstance(table, dict) or not all(isinstance(index, int) for index in table.values()):
        raise CheckpointError(f"{path}: expected an object of tokens and their ids")
    return table


def _byte_alphabet() -> dict[str, int]:
    """The byte for each printable character of byte-level vocabularies (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + position): byte for position, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    """The bytes of a token; a token that is not in the byte alphabet is plain text."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode("utf-8")
