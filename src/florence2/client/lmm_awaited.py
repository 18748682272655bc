"""``infer_lmm_async`` with the type of its result for each way of calling it; the twin of ``lmm_blocking``.

In: images, a prompt and options. Out: what ``LmmCall`` gives, awaited. Knows nothing of the client's state, which the class that
inherits from it holds.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, overload

from florence2.client.answers import Answer
from florence2.client.errors import InferenceError
from florence2.client.inputs import ImageInput, ImageInputs, ImageList
from florence2.client.lmm_requests import LmmCall, LmmCaller
from florence2.client.options import LmmFields, LmmOptions, OnError, Prompts
from florence2.client.progress import Progress

if TYPE_CHECKING:
    from typing import Unpack


class AwaitedLmm(LmmCaller):
    """The awaited call of a client."""

    @abstractmethod
    async def _answered(self, call: LmmCall, given: ImageInputs) -> Any:
        """Make the call, awaited."""

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageInput,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError = "fail",
        typed: Literal[False] = False,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> dict[str, Any]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageInput,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError = "fail",
        typed: Literal[True],
        progress: Progress = False,
        prompts: None = None,
        **options: Unpack[LmmFields],
    ) -> Answer: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageInput,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError = "fail",
        typed: Literal[True],
        progress: Progress = False,
        prompts: Prompts,
        **options: Unpack[LmmFields],
    ) -> list[Answer]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageInput,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError = "fail",
        typed: bool,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> dict[str, Any] | Answer | list[Answer]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["fail"] = "fail",
        typed: Literal[False] = False,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> list[dict[str, Any]]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["fail"] = "fail",
        typed: Literal[True],
        progress: Progress = False,
        prompts: None = None,
        **options: Unpack[LmmFields],
    ) -> list[Answer]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["fail"] = "fail",
        typed: Literal[True],
        progress: Progress = False,
        prompts: Prompts,
        **options: Unpack[LmmFields],
    ) -> list[list[Answer]]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["item"],
        typed: Literal[False] = False,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> list[dict[str, Any] | InferenceError]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["item"],
        typed: Literal[True],
        progress: Progress = False,
        prompts: None = None,
        **options: Unpack[LmmFields],
    ) -> list[Answer | InferenceError]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["item"],
        typed: Literal[True],
        progress: Progress = False,
        prompts: Prompts,
        **options: Unpack[LmmFields],
    ) -> list[list[Answer] | InferenceError]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: Literal["fail"] = "fail",
        typed: bool,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> list[dict[str, Any]] | list[Answer] | list[list[Answer]]: ...

    @overload
    async def infer_lmm_async(
        self,
        inference_input: ImageList,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError,
        typed: bool,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> list[dict[str, Any] | InferenceError] | list[Answer | InferenceError] | list[list[Answer] | InferenceError]: ...

    async def infer_lmm_async(
        self,
        inference_input: ImageInputs,
        model_id: str | None = None,
        prompt: str | None = None,
        model_id_in_path: bool = False,
        max_new_tokens: int | None = None,
        enable_thinking: bool | None = None,
        *,
        on_error: OnError = "fail",
        typed: bool = False,
        progress: Progress = False,
        **options: Unpack[LmmOptions],
    ) -> Any:
        """As ``infer_lmm``, awaited."""
        fields = {"prompt": prompt, "max_new_tokens": max_new_tokens, "enable_thinking": enable_thinking, **options}
        call = self._lmm_call("infer_lmm", model_id, fields, model_id_in_path, on_error, typed, progress)
        return await self._answered(call, inference_input)
