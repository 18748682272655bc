"""A text model whose token tables are not all tied.

Published checkpoints share one table between prompts, the decoder's input and the head. Some fine-tuned checkpoints do not, nor do
adapters that train one table only (a common recipe): merging it into the shared table would change the other two uses as well. The
reference has a fourth table, the encoder's, which it never reads: prompts are embedded with the shared one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor, nn

from florence2.model.bart import Bart
from florence2.model.config import TextConfig
from florence2.model.linear import Linear
from florence2.weights.names import DECODER_TABLE, HEAD

if TYPE_CHECKING:
    from jaxtyping import Float


class UntiedBart(Bart):
    """``Bart`` with separate tables, each ``[vocabulary, width]``.

    Args:
        config: dimensions of the text model.
        own: the tables that differ from the shared one, of ``HEAD`` and ``DECODER_TABLE``.
    """

    def __init__(self, config: TextConfig, own: Collection[str]) -> None:
        super().__init__(config)
        if HEAD in own:
            self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)
        if DECODER_TABLE in own:
            self.decoder.add_module("embed_tokens", nn.Embedding(config.vocab_size, config.d_model))
        self._own = frozenset(own)

    @property
    def head_weight(self) -> Float[Tensor, "vocabulary width"]:
        """The weights of the head."""
        return self.lm_head.weight if HEAD in self._own else self.shared.weight

    @property
    def decoder_table(self) -> Float[Tensor, "vocabulary width"]:
        """The embedding table of the decoder's input."""
        return self.decoder.get_parameter("embed_tokens.weight") if DECODER_TABLE in self._own else self.shared.weight
