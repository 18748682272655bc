"""A scripted model: cheap, exact, and different for every image, prompt and history.

It keeps its rows' histories and its requests' prompts in the real cache, so that a row that is reordered, kept or dropped
wrongly gives wrong answers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from florence2.engine.next_tokens import best_tokens
from florence2.engine.request import Request, SharedImage, start_search
from florence2.engine.search import Generated, SpecialTokens
from florence2.model.adapters import Routing
from florence2.model.bart import EncodedPrompts
from florence2.model.cache import DecoderCache
from florence2.model.config import TextConfig
from florence2.request_options import GenerationOptions

VOCABULARY = 80
SPECIAL = SpecialTokens()
TABLE = torch.randn(101, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 1.5


def scripted_logits(image: int, prompt: Sequence[int], history: Sequence[int]) -> Tensor:
    """What the model says after ``history``, ``[vocabulary]``. The end becomes likelier with every token."""
    key = image * 7 + len(history)
    for token in (*prompt, *history[-4:]):
        key = key * 31 + token
    logits = TABLE[key % 101].roll(key % VOCABULARY)
    logits[SPECIAL.eos] += len(history) / 8
    return logits


class ScriptedModel:
    """The model's interface over ``scripted_logits``.

    Attributes:
        image_batches, step_rows: sizes of the calls so far.
        hold: steps wait while this is cleared.
        failure: raised by the next call of that name.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.image_batches: list[int] = []
        self.step_rows: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self.in_step = threading.Event()
        self.failure: dict[str, BaseException] = {}
        self.routing = Routing()

    def _fail(self, call: str) -> None:
        if call in self.failure:
            raise self.failure.pop(call)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        self._fail("encode_image")
        self.image_batches.append(len(pixel_values))
        return pixel_values[:, 0, :1, :1]

    def encode_prompt(self, image_features: Tensor, prompt_ids: Tensor, prompt_lengths: Sequence[int]) -> EncodedPrompts:
        self._fail("encode_prompt")
        hidden = torch.cat([image_features, prompt_ids.unsqueeze(-1).float()], dim=1)
        return EncodedPrompts(hidden, tuple(1 + length for length in prompt_lengths))

    def new_cache(self, max_rows: int) -> DecoderCache:
        config = TextConfig(d_model=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1, max_position_embeddings=64)
        return DecoderCache(config, max_rows=max_rows)

    def admit(self, cache: DecoderCache, encoded: EncodedPrompts, num_beams: Sequence[int]) -> None:
        cross = encoded.hidden.unsqueeze(1)
        cache.append([(cross, cross.clone())], list(encoded.lengths), list(num_beams))
        self._fail("admit")

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        self.in_step.set()
        self.hold.wait()
        self._fail("decode_step")
        self.step_rows.append(len(token_ids))
        assert cache.num_rows == len(token_ids)
        step = cache.begin_step()
        new = token_ids.float().view(-1, 1, 1, 1)
        keys, _ = step.extend(0, new, new)
        prompts, _ = step.cross(0)
        queries = range(cache.num_rows) if step.permutation is None else step.permutation.query_of_row.tolist()
        owners = [request for request, beams in enumerate(cache.num_beams) for _ in range(beams)]
        logits = []
        for row, (owner, query) in enumerate(zip(owners, queries, strict=True)):
            source = prompts[query // step.size.beams, 0, : cache.source_lengths[owner], 0].long().tolist()
            history = keys[row, 0, : cache.row_lengths[row] + 1, 0].long().tolist()
            logits.append(scripted_logits(source[0], source[1:], history))
        cache.end_step()
        return torch.stack(logits)


def image(number: int) -> SharedImage:
    """An image that the scripted model tells from others by its number."""
    return SharedImage(torch.full((3, 2, 2), float(number)))


def request(options: GenerationOptions, number: int = 1, prompt: Sequence[int] = (0, 5, 2), shared: SharedImage | None = None) -> Request:
    """A request whose answer is what was generated."""
    return Request(shared or image(number), list(prompt), start_search(options, SPECIAL), lambda generated: generated)


def answer_alone(options: GenerationOptions, number: int = 1, prompt: Sequence[int] = (0, 5, 2)) -> Generated:
    """The answer to the same request without any engine: a search fed by hand."""
    search = start_search(options, SPECIAL)
    histories: list[list[int]] = [[] for _ in range(search.num_rows)]
    while search.answer is None:
        histories = [[*histories[parent], token] for parent, token in zip(search.parents, search.tokens, strict=True)]
        logits = torch.stack([scripted_logits(number, prompt, history) for history in histories])
        search.advance(best_tokens(logits, search.num_candidates, search.banned(), search.forced))
    return search.answer
