"""Rates such as 60/minute, as the library ``limits`` reads them."""

from __future__ import annotations

from limits import RateLimitItem, parse

from florence2.errors import InvalidOption


def check_rate(rate: str) -> RateLimitItem:
    """The rate, read.

    Raises:
        InvalidOption: it is none.
    """
    try:
        item = parse(rate)
    except ValueError:
        item = None
    if item is None or item.amount < 1 or item.get_expiry() < 1:
        raise InvalidOption(
            f"a rate is a number per second, minute, hour or day, such as 60/minute or 100/15minutes, got {rate!r}", field="rate"
        )
    return item
