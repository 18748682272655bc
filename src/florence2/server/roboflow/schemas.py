"""The JSON of this API: requests as clients of Roboflow's ``/infer/lmm`` send them, and the answers.

Names, defaults and coercions are those of Roboflow's server; this project adds optional fields, and unknown ones are ignored. Knows nothing
of images' bytes, models or routes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from florence2.server.http.region import RegionValue
from florence2.server.http.tiles import ONLY, OVERLAP, TILES, TilesValue

Name = Annotated[str, Field(max_length=256)]
ModelName = Annotated[str, Field(max_length=512)]
Note = Annotated[str, Field(max_length=8192)]
Pixel = int | float


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())


class ImageField(_Message):
    """One image as it stands in a request."""

    type: Note = Field(description="How the value is written: base64, url or file.", examples=["base64"])
    value: Any = Field(default=None, description="Base64 text of an image file, a URL, or a path below the server's image folder.")


class PromptField(_Message):
    """One of several prompts."""

    prompt: str = Field(description="A task's tag or free text.", examples=["<CAPTION_TO_PHRASE_GROUNDING>"])
    text: str | None = Field(default=None, description="The text of a task that needs one.")
    region: RegionValue | None = Field(default=None, description="The region of a task that needs one: x1, y1, x2, y2 in pixels.")


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


# An integer of this project's own fields: in the fields of Roboflow's clients true counts as 1, as it does there.
NoFlag = Annotated[int, BeforeValidator(_no_flag)]


def _no_flag_but_number(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    return value


def _image_form(value: object) -> str:
    return "as list" if isinstance(value, list) else "as one"


def _prompt_form(value: object) -> str:
    return "as text" if isinstance(value, str) else "as object"


# Discriminated by their JSON type, so that an error is about the form that was meant. Tags are no field's name.
OneOrMany = Annotated[Annotated[ImageField, Tag("as one")] | Annotated[list[ImageField], Tag("as list")], Discriminator(_image_form)]
PromptEntry = Annotated[Annotated[str, Tag("as text")] | Annotated[PromptField, Tag("as object")], Discriminator(_prompt_form)]


class InferRequest(_Message):
    """The body of ``/infer/lmm``."""

    model_id: ModelName | None = Field(
        default=None, description="The model. Required, unless the path names it.", examples=["florence-2-base"]
    )
    image: OneOrMany = Field(description="One image, or a list of them for a list of answers.")
    prompt: str | None = Field(
        default=None, description="A task's tag, with its text or region behind it or apart, or free text.", examples=["<OD>"]
    )
    api_key: Note | None = Field(default=None, description="The key, where no query parameter or header has one.")
    id: Name | None = Field(default=None, description="Comes back as inference_id.")
    max_new_tokens: int | None = Field(default=None, description="Longest answer in tokens. Default: the checkpoint's own limit.")
    disable_preproc_auto_orient: bool = Field(default=False, description="Do not turn the image upright by its EXIF orientation.")

    prompts: list[PromptEntry] | None = Field(default=None, description="Several prompts about the same image, instead of prompt.")
    text: str | None = Field(default=None, description="The text of a task that needs one.")
    region: RegionValue | None = Field(default=None, description="The region of a task that needs one: x1, y1, x2, y2 in pixels.")
    num_beams: NoFlag | None = Field(default=None, description="Beams of the search, 1 is greedy. Default: the checkpoint's.")
    no_repeat_ngram_size: NoFlag | None = Field(
        default=None, description="No run of so many tokens comes twice; 0: off. Default: the checkpoint's."
    )
    allow_unknown_tag: bool = Field(default=False, description="Let a fine-tuned checkpoint's own tag pass.")
    scores: bool = Field(default=False, description="Add to found objects how likely each is right, from 0 to 1.")
    tiles: TilesValue | None = Field(default=None, description=TILES, examples=["2x2", 640])
    tile_overlap: Annotated[float, BeforeValidator(_no_flag_but_number)] | None = Field(default=None, description=OVERLAP)
    tiles_only: bool = Field(default=False, description=ONLY)
    coordinates: Literal["int", "float"] = Field(default="int", description="Whole pixels, or the unrounded middles of the model's bins.")
    raw: bool = Field(default=False, description="Add what the model wrote, token by token.")
    usage: bool = Field(default=False, description="Add how many tokens were read and written.")
    stream: bool = Field(default=False, description="Answer with server-sent events: text and objects as they are decided.")
    on_error: Literal["fail", "item"] = Field(
        default="fail", description="With a list: one bad image fails the call, or only its own place."
    )

    # Sent by known clients, checked like there, and without effect on this model.
    enable_thinking: bool = Field(default=False, description="No effect.")
    usage_billable: bool = Field(default=True, description="No effect.")
    source: Note | None = Field(default=None, description="No effect.")
    source_info: Note | None = Field(default=None, description="No effect.")
    start: float | None = Field(default=None, description="No effect.")
    model_type: Note | None = Field(default=None, description="No effect.")
    disable_model_monitoring: bool = Field(default=False, description="No effect.")
    disable_preproc_contrast: bool = Field(default=False, description="No effect.")
    disable_preproc_grayscale: bool = Field(default=False, description="No effect.")
    disable_preproc_static_crop: bool = Field(default=False, description="No effect.")
    stream_pipeline_context_id: Note | None = Field(default=None, description="No effect.")


class ImageSize(_Message):
    """Width and height of an image after its EXIF rotation."""

    width: int
    height: int


class RawAnswer(_Message):
    """What the model wrote."""

    text: str = Field(description="The generated text with all special tokens.")
    token_ids: list[int]
    finish_reason: str = Field(description='"stop" when the model ended its answer, "length" when the token limit did.')
    log_probability: float | None = Field(description="Sum over the generated tokens.")


class TokenUsage(_Message):
    """How many tokens one answer took."""

    prompt_tokens: int = Field(description="Read: those of the image and those of the prompt.")
    image_tokens: int = Field(description="How many of them are the image's.")
    completion_tokens: int = Field(description="Written.")
    total_tokens: int = Field(description="Read and written.")
    image_cached: bool = Field(description="The image was encoded already, for an earlier prompt.")


class InferResponse(_Message):
    """The answer about one image."""

    inference_id: str
    time: float = Field(description="Seconds from the request's arrival to its answer.")
    image: ImageSize
    response: dict[str, Any] | list[dict[str, Any]] = Field(description="One key, the task. With prompts: a list of such, in their order.")
    raw: RawAnswer | list[RawAnswer] | None = Field(default=None, description="Only if asked for.")
    usage: TokenUsage | list[TokenUsage] | None = Field(default=None, description="Only if asked for.")


class ErrorBody(_Message):
    """Every error."""

    message: str
    code: str
    field: str | None = None
    help_url: str
    detail: list[dict[str, Any]] | None = Field(default=None, description="With 422: each part of the request that does not fit.")


class ItemError(ErrorBody):
    """An error in an image's place."""

    status: int


class FailedItem(_Message):
    """What stands in a list of answers where an image had none, with ``on_error: "item"``."""

    error: ItemError


class TextEvent(_Message):
    """The data of an event ``text``: the next part of an answer's text."""

    image_index: int
    prompt_index: int
    text: str


class ObjectEvent(_Message):
    """The data of an event ``object``: an object whose label and place are complete."""

    image_index: int
    prompt_index: int
    object_index: int = Field(description="Its place among the objects of the answer.")
    label: str
    box: tuple[Pixel, Pixel, Pixel, Pixel] = Field(description="x1, y1, x2, y2; the smallest box around a quad or polygons.")
    quad: list[Pixel] | None = Field(default=None, description="Eight numbers, where the task gives quads.")
    polygons: list[list[Pixel]] | None = Field(default=None, description="Each x, y, x, y, …, where the task gives polygons.")
    score: float | None = Field(default=None, description="Only if asked for.")


class ErrorEvent(ItemError):
    """The data of an event ``error``, which is the last one unless it names an image."""

    image_index: int | None = Field(default=None, description='The image that has no answer, with ``on_error: "item"``.')
    retry_after: int | None = Field(default=None, description="After how many seconds the request may be sent again.")


class ModelRequest(_Message):
    """The body of ``/model/add`` and ``/model/remove``."""

    model_id: ModelName = Field(examples=["florence-2-base"])
    model_type: Note | None = Field(default=None, description="No effect.")
    api_key: Note | None = None


class LoadedModelEntry(_Message):
    """One loaded model."""

    model_id: str
    task_type: str = "lmm"
    batch_size: int | str | None = None
    input_height: int | None = None
    input_width: int | None = None
    vram_bytes: int | None = None
    request_aliases: list[str]
    request_paths: list[str]


class Registry(_Message):
    """The loaded models."""

    models: list[LoadedModelEntry]
    total_vram_bytes: int | None = None
    gpu_memory_used: int | None = None
    gpu_memory_total: int | None = None
    torch_cuda_allocated: int | None = None
    torch_cuda_reserved: int | None = None
    torch_cuda_allocator_cache: int | None = None
    non_torch_gpu_memory: int | None = None


class ServerInfo(_Message):
    """What ``/info`` says."""

    name: str
    version: str
    uuid: str
