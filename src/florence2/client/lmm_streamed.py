"""``stream_lmm`` and ``stream_lmm_async`` with the type of their last event for each way of calling them.

In: images, a prompt and options. Out: what ``LmmCall`` gives as a stream, typed by whether there is one image, whether answers are typed,
and whether there are several prompts. Knows nothing of the client's state, which the class that inherits from it holds.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, overload

from florence2.client.answers import Answer
from florence2.client.inputs import ImageInput, ImageInputs, ImageList
from florence2.client.lmm_iterators import AwaitedLmmStream, LmmStream
from florence2.client.lmm_requests import LmmCall, LmmCaller
from florence2.client.options import LmmFields, LmmOptions, OnError, Prompts
from florence2.client.progress import Progress

if TYPE_CHECKING:
    from typing import Unpack


class StreamedLmm(LmmCaller):
    """The calls of a client whose answers are streams."""

    @abstractmethod
    def _streamed(self, call: LmmCall, given: ImageInputs) -> LmmStream[Any]:
        """Make the call."""

    @abstractmethod
    def _streamed_awaited(self, call: LmmCall, given: ImageInputs) -> AwaitedLmmStream[Any]:
        """Make the call, awaited."""

    @overload
    def stream_lmm(
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
    ) -> LmmStream[dict[str, Any]]: ...

    @overload
    def stream_lmm(
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
    ) -> LmmStream[Answer]: ...

    @overload
    def stream_lmm(
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
    ) -> LmmStream[list[Answer]]: ...

    @overload
    def stream_lmm(
        self,
        inference_input: ImageList,
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
    ) -> LmmStream[list[Any]]: ...

    @overload
    def stream_lmm(
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
    ) -> LmmStream[dict[str, Any] | Answer | list[Answer]]: ...

    def stream_lmm(
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
    ) -> LmmStream[Any]:
        """As ``infer_lmm``, with the answer as it is generated.

        The request is sent with the first step of the iteration. With a list, the requests about its images are under way at the same
        time, and their events come in whichever order they happen. Of a server that does not stream, such as Roboflow's, text and objects
        come with the answer. Leave a stream with ``break``, by the end of its ``with`` block or with ``close``, and the server stops too.

        Args:
            inference_input: as in ``infer_lmm``, like all the others.
            model_id: the model.
            prompt: a task's tag with what belongs to it, or free text.
            model_id_in_path: name the model in the path as well.
            max_new_tokens: the longest answer in tokens.
            enable_thinking: passed on.
            on_error: with a list, ``fail`` raises the first error, ``item`` gives ``ImageFailed`` and puts the error in its image's place.
            typed: the last event holds ``Answer`` objects.
            progress: with a list, how its progress is shown.
            options: see ``LmmOptions``.

        Returns:
            ``TextDecided``, ``ObjectFound`` and ``ImageFailed`` events, and at last ``Done`` with what ``infer_lmm`` gives.

        Raises:
            InvalidParameter: an option that is not known.
            ModelNotSelected: no model named and none selected.
            InferenceError: from the iterator: all else that ``infer_lmm`` raises; ``ConnectionFailed`` too where the answer breaks off.
        """
        fields = {"prompt": prompt, "max_new_tokens": max_new_tokens, "enable_thinking": enable_thinking, **options}
        call = self._lmm_call("stream_lmm", model_id, fields, model_id_in_path, on_error, typed, progress)
        return self._streamed(call, inference_input)

    @overload
    def stream_lmm_async(
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
    ) -> AwaitedLmmStream[dict[str, Any]]: ...

    @overload
    def stream_lmm_async(
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
    ) -> AwaitedLmmStream[Answer]: ...

    @overload
    def stream_lmm_async(
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
    ) -> AwaitedLmmStream[list[Answer]]: ...

    @overload
    def stream_lmm_async(
        self,
        inference_input: ImageList,
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
    ) -> AwaitedLmmStream[list[Any]]: ...

    @overload
    def stream_lmm_async(
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
    ) -> AwaitedLmmStream[dict[str, Any] | Answer | list[Answer]]: ...

    def stream_lmm_async(
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
    ) -> AwaitedLmmStream[Any]:
        """As ``stream_lmm``, to be iterated with ``async for``."""
        fields = {"prompt": prompt, "max_new_tokens": max_new_tokens, "enable_thinking": enable_thinking, **options}
        call = self._lmm_call("stream_lmm", model_id, fields, model_id_in_path, on_error, typed, progress)
        return self._streamed_awaited(call, inference_input)
