"""What the application is handed of this API."""

from __future__ import annotations

from florence2.server.errors import as_json
from florence2.server.http.api import Api
from florence2.server.roboflow import examples
from florence2.server.roboflow.body_key import may_hold_key
from florence2.server.roboflow.metrics import observe
from florence2.server.roboflow.model_ids import FOREIGN_IDS
from florence2.server.roboflow.routes import INFO_PATH, MANAGEMENT_PATHS, router

API = Api(
    router=router,
    prefixes=("/infer/lmm", "/model", INFO_PATH),
    error_body=as_json,  # the server's own form holds what clients of this API look for
    open_paths=frozenset({INFO_PATH}),
    may_hold_key=may_hold_key,
    role_of=lambda path: "manage" if path in MANAGEMENT_PATHS else "infer",
    model_ids=FOREIGN_IDS,
    exposed_headers=(
        *("X-Processing-Time", "X-Model-Cold-Start", "X-Model-Cold-Start-Count", "X-Model-Load-Time"),
        *("X-Model-Load-Details", "X-Model-Id"),
    ),
    observe=observe,
    example=examples.json_call,
    first_call=examples.form_call,
)
