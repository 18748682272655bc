"""What is known of a key, once it has been recognized: its name, what it may do, and how much. Holds no secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["infer", "manage", "metrics"]
ROLES: tuple[Role, ...] = get_args(Role)
SELF_CHECK = "self-check"
"""The name of the key with which a server calls itself; what it uses is not counted."""


@dataclass(frozen=True)
class KeyInfo:
    """A key that is accepted.

    Attributes:
        name: what logs, limits and usage know it by; "" on a server without keys.
        roles: what it may do: ask models, manage them, read metrics.
        models: the names of the models that it may ask; None: all.
        max_slots: most images times prompts times beams under way at once; None: as many as the server allows every key.
        rate: most requests in a time, such as "60/minute"; None: no such limit.
        monthly_quota: most images in a calendar month (UTC); None: no such limit.
    """

    name: str
    roles: frozenset[Role]
    models: frozenset[str] | None = None
    max_slots: int | None = None
    rate: str | None = None
    monthly_quota: int | None = None


ANYBODY = KeyInfo("", frozenset(ROLES))
"""Who calls a server without keys."""
