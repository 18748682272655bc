"""The JSON of this API: requests as clients of OpenAI's chat completions send them, and the answers.

A request has the arguments that are honoured, those of this project included; ``arguments`` says what becomes of all others. Messages are
read in ``conversation``. Knows nothing of images' bytes, models or routes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from florence2.server.http.region import RegionValue
from florence2.server.http.tiles import ONLY, OVERLAP, TILES, TilesValue

ModelName = Annotated[str, Field(max_length=512)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())


class ChatMessage(_Part):
    """One message of a conversation."""

    role: str = Field(max_length=64, description="user; system, developer and assistant as the documentation says.", examples=["user"])
    content: Any = Field(default=None, description="A text, or a list of parts of type text and image_url.")


class StreamOptions(_Part):
    """What a stream holds besides the answer."""

    include_usage: StrictBool | None = Field(default=None, description="End with a chunk that counts the tokens.")


class ResponseFormat(_Part):
    """The form of the answer."""

    type: str = Field(max_length=64, description="text or json_object.", examples=["json_object"])


class ChatRequest(_Part):
    """The body of ``/v1/chat/completions``, as far as it is honoured."""

    model: ModelName = Field(description="One of `GET /v1/models`.", examples=["florence-2-base"])
    messages: list[ChatMessage] = Field(
        fail_fast=True,
        description="The last one is the question: a text (a task with its text or region behind it, or plain words) and one picture.",
    )
    max_completion_tokens: StrictInt | None = Field(
        default=None, ge=1, description="The longest answer in tokens; the model's own limit where that is smaller."
    )
    max_tokens: StrictInt | None = Field(default=None, ge=1, description="The older name of `max_completion_tokens`.")
    response_format: ResponseFormat | None = Field(
        default=None,
        description='`{"type": "text"}`: the generated text, with location tokens where the task locates. `{"type": "json_object"}`: the '
        "parsed answer. `json_schema` is refused.",
    )
    stream: StrictBool | None = Field(default=None, description="Send the answer in chunks, as it is generated.")
    stream_options: StreamOptions | None = Field(default=None, description="`include_usage`: a last chunk counts the tokens.")
    logprobs: StrictBool | None = Field(default=None, description="The log-probability of each generated token.")

    text: str | None = Field(default=None, description="The text of a task that needs one, where it does not stand behind the tag.")
    region: RegionValue | None = Field(
        default=None, description="The region of a task that needs one: x1, y1, x2, y2 in pixels of the picture."
    )
    num_beams: StrictInt | None = Field(default=None, description="Beams of the search, 1 is greedy. Default: the checkpoint's.")
    no_repeat_ngram_size: StrictInt | None = Field(
        default=None, description="No run of so many tokens comes twice; 0: off. Default: the checkpoint's."
    )
    scores: StrictBool | None = Field(default=None, description="With `json_object`: how likely each found object is right, from 0 to 1.")
    coordinates: Literal["int", "float"] | None = Field(
        default=None, description="With `json_object`: whole pixels, or the unrounded middles of the model's bins."
    )
    tiles: TilesValue | None = Field(default=None, description=TILES, examples=["2x2", 640])
    tile_overlap: StrictFloat | None = Field(default=None, description=OVERLAP)
    tiles_only: StrictBool | None = Field(default=None, description=ONLY)
    allow_unknown_tag: StrictBool | None = Field(default=None, description="Let a fine-tuned checkpoint's own tag pass.")

    @property
    def wants_json(self) -> bool:
        """Whether the answer is the parsed one."""
        return self.response_format is not None and self.response_format.type == "json_object"


class TokenLogProbability(_Part):
    """One token of the generated text."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = Field(description="Always empty: only the tokens of the answer have their probability.")


class LogProbabilities(_Part):
    """The tokens of the generated text but for those that frame it."""

    content: list[TokenLogProbability]
    refusal: None = None


class AnswerMessage(_Part):
    """The answer itself."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(description="The generated text, or with `json_object` the parsed answer as JSON.")
    refusal: None = None


class Choice(_Part):
    """The one answer to a request."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: LogProbabilities | None = None
    finish_reason: Literal["stop", "length"]


class PromptTokens(_Part):
    """What the tokens of the prompt consist of."""

    image_tokens: int
    cached_tokens: int = Field(description="Those of a picture that had been encoded already.")


class TokenUsage(_Part):
    """What an answer counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens


class Completion(_Part):
    """The answer to a request that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage | None


class ModelEntry(_Part):
    """One model that a request may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the server started.")
    owned_by: str


class ModelList(_Part):
    """The models that a request may name."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(_Part):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str
    help_url: str


class ErrorAnswer(_Part):
    """Every error."""

    error: ErrorDetail
