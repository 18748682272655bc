"""``infer_lmm`` with the type of its result for each way of calling it.

In: images, a prompt and options. Out: what ``LmmCall`` gives, typed by whether there is one image or a list, whether answers are typed,
whether there are several prompts, and whether an image's error is its answer. ``lmm_awaited`` is its twin. Knows nothing of the
client's state, which the class that inherits from it holds.
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


class BlockingLmm(LmmCaller):
    """The blocking call of a client."""

    @abstractmethod
    def _answer(self, call: LmmCall, given: ImageInputs) -> Any:
        """Make the call."""

    @overload
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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
    def infer_lmm(
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

    def infer_lmm(
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
        """What the model says about an image, or about each image of a list.

        Args:
            inference_input: a path, URL, base64 text or data URI, bytes of an image file, Pillow image (any mode), numpy array
                (uint8, BGR unless the configuration says RGB), or a list of such.
            model_id: the model; left out, the selected one.
            prompt: a task's tag with what belongs to it, or free text.
            model_id_in_path: name the model in the path as well.
            max_new_tokens: the longest answer in tokens.
            enable_thinking: passed on; Florence-2 does not heed it.
            on_error: with a list, ``fail`` raises the first error, ``item`` puts each error in its image's place.
            typed: give ``Answer`` objects instead of the server's JSON.
            progress: with a list, True shows a bar, a function is called with the images done and all images.
            options: see ``LmmOptions``.

        Returns:
            The server's JSON, ``{"inference_id", "time", "image", "response"}``; a list, always a list, for a list.

        Raises:
            InvalidInput: something that is no image; said before anything is sent where that can be known.
            InvalidParameter: an option that is not known.
            ModelNotSelected: no model named and none selected.
            CallError: the server answered with an error.
            ConnectionFailed: no answer came.
            CallTimeout: it took too long.
            UnexpectedAnswer: it was no answer of such a server.
        """
        fields = {"prompt": prompt, "max_new_tokens": max_new_tokens, "enable_thinking": enable_thinking, **options}
        call = self._lmm_call("infer_lmm", model_id, fields, model_id_in_path, on_error, typed, progress)
        return self._answer(call, inference_input)
