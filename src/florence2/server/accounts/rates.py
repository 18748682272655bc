"""Rates such as 60/minute, as the library ``limits`` reads them."""

from __future__ import annotations

from limits import RateLimitItem, parse_many

from florence2.errors import InvalidOption

MAX_CHARS = 50  # as many as the table has
MAX_REQUESTS = 1_000_000_000
MAX_WINDOW_S = 366 * 86400


def check_rate(rate: str) -> RateLimitItem:
    """The rate, read.

    Raises:
        InvalidOption: it is none.
    """
    try:
        items = parse_many(rate) if len(rate) <= MAX_CHARS else []
    except ValueError:
        items = []
    item = items[0] if len(items) == 1 else None
    if item is None or not 1 <= item.amount <= MAX_REQUESTS or not 1 <= item.get_expiry() <= MAX_WINDOW_S:
        raise InvalidOption(
            f"a rate is one number per second, minute, hour or day, such as 60/minute or 100/15minutes, got {rate[:MAX_CHARS]!r}",
            field="rate",
        )
    return item
