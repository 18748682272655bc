"""A prompt with its token ids: parsed once, tokenized once, and bound to each image that it is submitted with.

In: what a caller gives as a prompt. Out: a ``TokenizedPrompt`` that fits the encoder, made before any image is there. Knows nothing of
images but their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from florence2.errors import InvalidPrompt, PromptTooLong
from florence2.tasks.prompt import Prompt, Region, parse_prompt
from florence2.tasks.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TokenizedPrompt:
    """A prompt with its ids, made by ``Engine.prepare``.

    Attributes:
        prompt: The parsed prompt.
        token_ids: Its ids, ``<s>`` and ``</s>`` included; a region in pixels is four ids of the first location until it is bound.
        tokenizer: What the ids belong to. An engine with another tokenizer tokenizes the prompt again.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    tokenizer: Tokenizer

    def bound_ids(self, image_size: Sequence[int]) -> list[int]:
        """The ids for an image of this size.

        Args:
            image_size: Width and height in pixels.

        Raises:
            InvalidRegion: The region is not inside the image.
        """
        ids, bins = list(self.token_ids), self.prompt.region_bins(image_size)
        if bins:
            locations = self.tokenizer.location_ids
            first = ids.index(locations[0])
            ids[first : first + len(bins)] = [locations[index] for index in bins]
        return ids


AnyPrompt = str | Prompt | TokenizedPrompt
"""What a request takes as its prompt: as a user writes it, parsed, or parsed and tokenized."""


def parsed(prompt: AnyPrompt, text: str | None, region: Region | None, allow_unknown_tag: bool) -> Prompt | TokenizedPrompt:
    """The prompt of a request, parsed; one that is parsed already holds its text and region.

    Raises:
        InvalidPrompt: A text or region beside a parsed prompt, or whatever ``parse_prompt`` refuses.
    """
    if not isinstance(prompt, Prompt | TokenizedPrompt):
        return parse_prompt(prompt, text=text, region=region, allow_unknown_tag=allow_unknown_tag)
    for field, value in (("text", text), ("region", region)):
        if value is not None:
            raise InvalidPrompt(f"{field} goes with a prompt that is a string; this one is parsed already: leave {field} out", field=field)
    return prompt


def tokenized(prompt: Prompt | TokenizedPrompt, tokenizer: Tokenizer, *, max_tokens: int, num_image_tokens: int) -> TokenizedPrompt:
    """The prompt with its ids; one that has ids of this tokenizer already is returned as it is.

    Args:
        prompt: A parsed prompt.
        tokenizer: The checkpoint's tokenizer.
        max_tokens: How many tokens the encoder has room for beside the image's.
        num_image_tokens: How many the image has; for the message.

    Raises:
        PromptTooLong: More than ``max_tokens``.
    """
    if isinstance(prompt, TokenizedPrompt):
        if prompt.tokenizer is tokenizer:
            return prompt
        prompt = prompt.prompt
    ids = tokenizer.encode(prompt.sentence)
    if len(ids) > max_tokens:
        raise PromptTooLong(
            f"the prompt is too long: it has {len(ids)} tokens, and beside the image's {num_image_tokens} there is "
            f"room for {max_tokens}; shorten its text",
            field="text" if prompt.tag else "prompt",
        )
    return TokenizedPrompt(prompt, tuple(ids), tokenizer)
