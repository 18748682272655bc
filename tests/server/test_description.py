"""The description of all routes holds: what is made of it gets no error of the server, and answers are as it says."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.types import Receive, Scope, Send

from fixtures.fake_engine import FakeEngine
from florence2.server.app import create_app
from florence2.server.settings import Settings

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
# Not among them: that all that fits the description is answered (a prompt may be a tag that there is not), and that all that does not is
# refused (fields of Roboflow's clients are coerced as their server does it).
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]

pytestmark = pytest.mark.slow
app = create_app(Settings(allow_urls=False), engine=FakeEngine())


async def without_end(scope: Scope, receive: Receive, send: Send) -> None:
    """The application, which would drain behind the first of the clients that schemathesis makes."""
    if scope["type"] == "lifespan":
        await send({"type": f"{(await receive())['type']}.complete"})
        await send({"type": f"{(await receive())['type']}.complete"})
    else:
        await app(scope, receive, send)


schema = schemathesis.openapi.from_asgi("/openapi.json", without_end)


@schema.parametrize()
@settings(
    max_examples=NUM_EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_routes_answer_as_described(case: Any) -> None:
    case.call_and_validate(checks=CHECKS)
