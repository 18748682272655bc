"""The phrases that original checkpoints drop from grounded captions, compared exactly.

Native checkpoints have this list in ``processor_config.json``; for original ones it is in the code that is published with them. Data
only. Source: the published native checkpoints, which have the original list.
"""

from __future__ import annotations

_PRONOUNS = (
    "I me mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself "
    "we us our ours ourselves they them their theirs themselves one oneself"
)
_POINTERS = "this that these those who whom whose which what"
_QUANTITIES = (
    "all another any anybody anyone anything each everybody everyone everything few many nobody none several some somebody "
    "someone something"
)
_PHRASES = ("each other", "one another", "the image", "image", "images", "the", "a", "an", "a group", "other objects", "lots", "a set")

ORIGINAL_BANNED_PHRASES = frozenset((*_PRONOUNS.split(), *_POINTERS.split(), *_QUANTITIES.split(), *_PHRASES))
