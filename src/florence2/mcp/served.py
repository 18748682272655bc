"""A model that a running server of ``florence2 serve`` has, asked in place of one that is loaded here.

In: a model's name, the server's address, pictures and prompts. Out: the same results as from an engine. A caller that leaves closes the
connection, at which the server frees what the call held. Knows nothing of tools and of the protocol.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from florence2.background import in_thread
from florence2.client import InferenceHTTPClient
from florence2.client.errors import CallError
from florence2.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL.Image import Image

    from florence2.results import Result
    from florence2.tasks.prompt import Prompt


class ServedModel:
    """One model of a server.

    Args:
        name: as the server calls it.
        api_url: the server's address. Its key is that of the environment, ``FLORENCE2_API_KEY``.

    Raises:
        InvalidParameter: ``api_url`` is no address, or the key none.
    """

    def __init__(self, name: str, api_url: str) -> None:
        self.name = name
        self._client = InferenceHTTPClient(api_url)

    def start(self) -> None:
        """Nothing: the server has its models, or loads them when they are asked."""

    async def prepare(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The prompts as they are: the server checks them."""
        return prompts

    async def answer(self, picture: Image, prompts: Sequence[Prompt], options: Mapping[str, Any]) -> list[Result]:
        """The results of prompts about one picture, in their order.

        Raises:
            InvalidRequest: the server refuses the call.
            InferenceError: it can't be reached, or fails.
        """
        asked = [prompt.bind(picture.size).inline for prompt in prompts]
        file = await in_thread("florence2-mcp-image", partial(_as_png, picture))
        try:
            return list(await self._client.infer_lmm_async(file, self.name, prompts=asked, typed=True, raw=True, **options))
        except CallError as error:
            if error.status_code is not None and error.status_code < 500 and error.api_message:
                raise InvalidRequest(error.api_message, field=error.field) from None
            raise

    def close(self) -> bool:
        """End nothing: the server stays."""
        return True


def _as_png(picture: Image) -> bytes:
    """The picture as a file without loss."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
