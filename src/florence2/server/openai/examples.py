"""A call of ``/v1/chat/completions`` to copy."""

from __future__ import annotations


def python_call(address: str, model: str) -> str:
    """A call with the ``openai`` package.

    Args:
        address: the server's.
        model: the id of a model.
    """
    return f"""import base64
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url="{address}/v1", api_key="KEY")
image = "data:image/png;base64," + base64.b64encode(Path("scene.png").read_bytes()).decode()
parts = [{{"type": "text", "text": "<CAPTION>"}}, {{"type": "image_url", "image_url": {{"url": image}}}}]
answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": parts}}])
print(answer.choices[0].message.content)"""
