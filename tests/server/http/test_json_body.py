"""Bodies of any bytes hold a JSON object or are refused."""

from __future__ import annotations

import json
import os

from hypothesis import example, given, settings
from hypothesis import strategies as st

from florence2.server.errors import ValidationFailed
from florence2.server.http.json_body import parse_object
from florence2.server.roboflow.body_key import shown_key

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
PIECES = (*'{}[]:,"-\\\0\xff', '"api_key"', "\\ud800", "1e999", "NaN", "Infinity", "null", "1" * 5000)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("api_key"), inner, max_size=3),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=60)
    | st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=20).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    )
    | VALUES.map(lambda value: json.dumps(value).encode())
)


@settings(max_examples=NUM_EXAMPLES, deadline=None, derandomize=True)
@given(body=BODIES)
@example(body=b"[" * 100_000)
@example(body=b'{"a":' * 90_000)
@example(body=b"\xef\xbb\xbf{}")
@example(body=b'{"api_key": "\\ud800"}')
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    shown_key(body)
    try:
        assert isinstance(parse_object(body), dict)
    except ValidationFailed:
        return
