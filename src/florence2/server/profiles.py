"""Sets of defaults: for a server on one's own machine, for one of one's own that others reach, and for one that strangers use.

Knows nothing of what the values do.
"""

from __future__ import annotations

from typing import Any, Literal

Profile = Literal["local", "dedicated", "hosted"]

EVERY_ADDRESS = "0.0.0.0"  # nosec B104 # not without keys, unless that is allowed

PROFILES: dict[str, dict[str, Any]] = {
    "local": {},
    "dedicated": {
        "host": EVERY_ADDRESS,
        "require_keys": True,
        "max_images": 32,
        "request_timeout_s": 120.0,
        "drain_delay_s": 2.0,
        "drain_timeout_s": 28.0,
        "log_json": True,
    },
    "hosted": {
        "host": EVERY_ADDRESS,
        "require_keys": True,
        "loadable": "named",
        "allow_model_management": False,
        "playground": False,
        "max_images": 8,
        "max_tiles": 9,
        "max_requests": 192,
        "max_requests_per_key": 24,
        "request_timeout_s": 30.0,
        "drain_delay_s": 5.0,
        "drain_timeout_s": 25.0,
        "log_json": True,
    },
}
"""What each profile sets; all else keeps its default."""
