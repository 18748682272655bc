"""Florence-2: vision tower, projector and text model as one module.

Inference has four steps: ``encode_image`` (pixels to image tokens, once per image), ``encode_prompt`` (image tokens and prompt to
encoded prompts), ``admit`` (encoded prompts into a cache, once per request) and ``decode_step`` (one token per row). ``forward``
is the training pass, with all target tokens at once. Parameter names are those of the native checkpoint layout without their
``model.`` prefix. Knows nothing of files, text or search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from florence2.model.adapters import Routing
from florence2.model.bart import Bart, EncodedPrompts
from florence2.model.cache import DecoderCache, Step
from florence2.model.config import Florence2Config
from florence2.model.davit import DaViT
from florence2.model.projector import Projector

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Florence2(nn.Module):
    """The whole model.

    Attributes:
        routing: which adapters the entries of a pass go through, where there are any (``florence2.model.adapting``).

    Source: Florence-2 (arXiv 2311.06242); equal to the reference implementation in float32 within rounding.
    """

    def __init__(self, config: Florence2Config) -> None:
        super().__init__()
        self.config = config
        self.routing = Routing()
        self.vision_tower = DaViT(config.vision)
        self.multi_modal_projector = Projector(config.vision)
        self.language_model = Bart(config.text)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.language_model.shared.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The text model's floating-point type."""
        return self.language_model.decoder.layernorm_embedding.weight.dtype

    @property
    def tower_dtype(self) -> torch.dtype:
        """The floating-point type of the vision tower and the projector."""
        return self.multi_modal_projector.image_proj_norm.weight.dtype

    def encode_image(self, pixel_values: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens d_model"]:
        """Image tokens: the mean token, then the grid row by row."""
        return self.multi_modal_projector(self.vision_tower(pixel_values)).to(self.dtype)

    def encode_prompt(
        self,
        image_features: Float[Tensor, "prompts image_tokens width"],
        prompt_ids: Int[Tensor, "prompts length"],
        prompt_lengths: Sequence[int],
    ) -> EncodedPrompts:
        """The encoder's output for each image's tokens followed by its prompt's tokens.

        Args:
            image_features: the output of ``encode_image``, one entry per prompt.
            prompt_ids: prompts with ``<s>`` and ``</s>``, padded on the right with any id.
            prompt_lengths: the number of ids of each prompt without padding.
        """
        embedded = torch.cat([image_features, self.language_model.embed_tokens(prompt_ids)], dim=1)
        lengths = tuple(image_features.shape[1] + length for length in prompt_lengths)
        return EncodedPrompts(self.language_model.encoder(embedded, lengths), lengths)

    def new_cache(self, max_rows: int) -> DecoderCache:
        """An empty cache for this model, with memory for ``max_rows`` rows of any length."""
        compiled = self.language_model.compiled_step
        dtype = self.dtype if compiled is None else compiled.key_dtype
        return DecoderCache(self.config.text, max_rows=max_rows, dtype=dtype, device=self.device)

    def admit(self, cache: DecoderCache, encoded: EncodedPrompts, num_beams: Sequence[int]) -> None:
        """Add encoded prompts to ``cache`` as new requests, each with ``num_beams`` rows."""
        cache.append(self.language_model.decoder.cross_keys_values(encoded), encoded.lengths, num_beams)

    def decode_step(self, token_ids: Int[Tensor, " rows"], cache: DecoderCache) -> Float[Tensor, "rows vocabulary"]:
        """Logits of the next token of each row of the cache; ``token_ids``, on any device, are added to it."""
        logits = self.decode(token_ids.to(self.device), cache.begin_step())
        cache.end_step()
        return logits

    def decode(self, token_ids: Int[Tensor, " rows"], step: Step) -> Float[Tensor, "rows vocabulary"]:
        """The logits of a step. Control flow does not depend on tensor values, so a CUDA graph can capture it."""
        text = self.language_model
        compiled = text.compiled_step
        if compiled is not None and compiled.can_take(step):
            return compiled(token_ids, step, self.routing.routes)
        return text.head(text.decoder.step(text.embed_decoder_tokens(token_ids), step))

    def forward(
        self,
        image_features: Float[Tensor, "prompts image_tokens width"],
        prompt_ids: Int[Tensor, "prompts length"],
        prompt_lengths: Sequence[int],
        decoder_ids: Int[Tensor, "prompts tokens"],
    ) -> Float[Tensor, "prompts tokens vocabulary"]:
        """Logits of all positions, for training. ``decoder_ids`` begin with the decoder's start token."""
        encoded = self.encode_prompt(image_features, prompt_ids, prompt_lengths)
        hidden = self.language_model.decoder(self.language_model.embed_decoder_tokens(decoder_ids), encoded)
        return self.language_model.head(hidden)
