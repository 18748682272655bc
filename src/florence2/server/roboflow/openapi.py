"""The parts of the API's description that can't be read off a signature."""

from __future__ import annotations

from typing import Any

from florence2.server.http.openapi import inlined, resolved
from florence2.server.http.sse import MEDIA_TYPE
from florence2.server.roboflow.schemas import ErrorEvent, InferRequest, ObjectEvent, TextEvent

EVENTS_DESCRIPTION = (
    "With `stream: true`. `text`: the next part of an answer's text. `object`: an object whose label and place are complete. "
    "`done`: the answer as it is without `stream`; the last event. `error`: an error as in other responses, with its status; the last "
    "event, unless it names an image. Each event has a line with its kind and a line of JSON; lines that begin with a colon are comments."
)
EXAMPLE_EVENTS = """event: text
data: {"image_index":0,"prompt_index":0,"text":"car<loc_52><loc_334><loc_932><loc_774>"}

event: object
data: {"image_index":0,"prompt_index":0,"object_index":0,"label":"car","box":[33,160,596,371]}

event: done
data: {"inference_id":"…","time":0.4,"image":{"width":640,"height":480},"response":{"<OD>":{"bboxes":[[33,160,596,371]],"labels":["car"]}}}

"""


def infer_body() -> dict[str, Any]:
    """The ways to write the body of ``/infer/lmm``, for the API's description."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = {name: part for name, part in schema["properties"].items() if name != "image"}
    form = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}, **properties}}
    return {
        "application/json": {"schema": inlined(InferRequest)},
        "multipart/form-data": {"schema": resolved(form, InferRequest.model_json_schema().get("$defs", {}))},
        "image/*": {"schema": {"type": "string", "format": "binary", "description": "The image; all fields in the query."}},
    }


def infer_events() -> dict[str, Any]:
    """The streamed answers of ``/infer/lmm``, for the API's description; ``x-events`` has the schema of each event's data."""
    kinds = {"text": TextEvent, "object": ObjectEvent, "error": ErrorEvent}
    return {
        MEDIA_TYPE: {
            "schema": {"type": "string", "description": EVENTS_DESCRIPTION},
            "example": EXAMPLE_EVENTS,
            "x-events": {name: inlined(kind) for name, kind in kinds.items()},
        }
    }
