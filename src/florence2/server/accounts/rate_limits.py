"""How many requests a key may send in a time, counted by the library ``limits``: in this process, or in a Redis for several servers.

While Redis does not answer each server counts by itself, so that a key can send at most so many times its rate as there are servers. In: a
key. Out: nothing, or an error that says when to come back.
"""

from __future__ import annotations

import logging
import math
import time
from functools import lru_cache

from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from florence2.errors import InvalidOption
from florence2.extras import requires
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.rates import check_rate
from florence2.server.errors import RateLimited

logger = logging.getLogger(__name__)

SCHEMES = ("redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster")
ANSWER_S = 0.5  # longest wait for Redis
PAUSE_S = 5.0  # before a Redis that did not answer is asked again
LOG_EVERY_S = 60.0

_rate = lru_cache(maxsize=1024)(check_rate)


class RateLimits:
    """The rates of keys.

    Args:
        url: ``memory://``, or that of a Redis; None: as ``memory://``.

    Raises:
        InvalidOption: the URL is neither.
        MissingExtra: what speaks to Redis is not installed.
    """

    def __init__(self, url: str | None) -> None:
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._shared = None if url in (None, "memory://") else FixedWindowRateLimiter(_redis(url or ""))
        self._asked_from = 0.0
        self._logged_at = -LOG_EVERY_S

    async def check(self, key: KeyInfo) -> None:
        """Count a request of a key.

        Raises:
            RateLimited: it has sent as many as it may.
        """
        if key.rate is None:
            return
        if self._shared is None or time.monotonic() < self._asked_from:
            await _count(self._own, key)
            return
        try:
            await _count(self._shared, key)
        except (StorageError, OSError) as error:
            self._asked_from = time.monotonic() + PAUSE_S
            if time.monotonic() - self._logged_at >= LOG_EVERY_S:
                self._logged_at = time.monotonic()
                logger.error("Redis does not count requests, so this server counts its own: %s", str(error) or type(error).__name__)
            await _count(self._own, key)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            await self._shared.storage.bridge.storage.aclose()  # type: ignore[attr-defined]


async def _count(limiter: FixedWindowRateLimiter, key: KeyInfo) -> None:
    assert key.rate is not None
    rate = _rate(key.rate)
    if await limiter.hit(rate, key.name):
        return
    stats = await limiter.get_window_stats(rate, key.name)
    wait_s = max(1, math.ceil(stats.reset_time - time.time()))
    raise RateLimited(f"this key may send {key.rate} requests, and has sent them; send it again in {wait_s} s", wait_s)


def _redis(url: str) -> Storage:
    if url.partition("://")[0] not in SCHEMES:
        raise InvalidOption("limits_url is memory:// or redis://host:6379/0", field="limits_url")
    try:
        with requires("redis", "a Redis for limits"):
            options = {"socket_timeout": ANSWER_S, "socket_connect_timeout": ANSWER_S}
            return storage_from_string(f"async+{url}", implementation="redispy", wrap_exceptions=True, **options)  # type: ignore[return-value]
    except (ConfigurationError, ValueError) as error:
        reason = str(error).replace(url, "…")  # it may hold a password
        raise InvalidOption(f"limits_url can't be used, expected one such as redis://host:6379/0: {reason}", field="limits_url") from None
