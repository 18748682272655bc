"""Calls of ``/infer/lmm`` to copy."""

from __future__ import annotations


def json_call(address: str, model: str) -> str:
    """A call with curl and JSON.

    Args:
        address: the server's.
        model: the id of a model.
    """
    return f"""curl {address}/infer/lmm -H 'Content-Type: application/json' -d '{{
  "model_id": "{model}", "prompt": "<CAPTION>",
  "image": {{"type": "base64", "value": "'$(base64 -w0 scene.png)'"}}}}'"""


def form_call(address: str, model: str, needs_key: bool) -> str:
    """A call with curl and a form, in one line; arguments as in ``json_call``, and whether a key is needed."""
    key = " -F api_key=KEY" if needs_key else ""
    return f"curl {address}/infer/lmm/{model} -F image=@photo.jpg --form-string 'prompt=<CAPTION>'{key}"
