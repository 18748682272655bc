"""What is put around Serve's part of a request is found by Serve, and understood."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")

from ray.serve._private import http_util
from ray.serve.config import HTTPOptions
from starlette.types import Receive, Scope, Send

from florence2.cluster.application import MIDDLEWARES, application
from florence2.cluster.config import cluster_config


def test_serve_does_not_watch_the_clients_of_an_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    ingress = application(cluster_config({"settings": {"host": "127.0.0.1"}}, "the test"))
    options: Any = ingress._bound_deployment.ray_actor_options
    environment = options["runtime_env"]["env_vars"]
    monkeypatch.setattr(http_util, MIDDLEWARES, environment[MIDDLEWARES])  # Serve reads the environment when it is imported
    found: Any = http_util.configure_http_middlewares(HTTPOptions()).middlewares
    watched: list[bool] = []

    async def serve_part(scope: Scope, receive: Receive, send: Send) -> None:
        watched.append(not http_util.parse_disconnect_disabled_header(dict(scope.get("headers", []))))

    app = http_util._apply_middlewares(serve_part, found)
    for kind, headers in (("http", []), ("http", [(b"x-request-disconnect-disabled", b"?0")]), ("lifespan", [])):
        with pytest.raises(StopIteration):
            app({"type": kind, "headers": headers}, None, None).send(None)  # type: ignore[attr-defined]  # it waits for nothing
    assert watched == [False, False, True]
