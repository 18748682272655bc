"""What the application is handed of this API."""

from __future__ import annotations

from florence2.server.http.api import Api
from florence2.server.openai.examples import python_call
from florence2.server.openai.refusals import error_body
from florence2.server.openai.routes import PREFIX, router

API = Api(router=router, prefixes=(PREFIX,), error_body=error_body, example=python_call)
