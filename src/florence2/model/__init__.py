"""The model: PyTorch modules only, without files and network."""

from florence2.model.bart import EncodedPrompts
from florence2.model.cache import DecoderCache
from florence2.model.config import Florence2Config, TextConfig, VisionConfig
from florence2.model.florence2 import Florence2

__all__ = ["DecoderCache", "EncodedPrompts", "Florence2", "Florence2Config", "TextConfig", "VisionConfig"]
