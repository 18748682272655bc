"""A text model whose output head has a table of its own.

Published checkpoints share one table between embeddings and head. Adapters that train the head (a common recipe) and some
fine-tunes do not: merging those into the shared table would change the embeddings as well.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from florence2.model.bart import Bart
from florence2.model.config import TextConfig
from florence2.model.linear import Linear


class UntiedBart(Bart):
    """``Bart`` with a separate head, ``[vocabulary, width]``."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Float[Tensor, "vocabulary width"]:
        """The head's own table."""
        return self.lm_head.weight
