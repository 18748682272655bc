"""From a conversation to the question that it ends with: one text and one picture.

The last message is the question. Florence-2 reads no conversation: of earlier messages only a picture counts, where the question has
none, and instructions are refused. In: messages. Out: a ``Question``, or an error that names the part. Knows nothing of tasks and images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from florence2.errors import InvalidImage, InvalidPrompt, InvalidRequest
from florence2.server.errors import UnsupportedArgument
from florence2.server.openai.schemas import ChatMessage

PARTS = (
    'a list of parts such as {"type": "text", "text": "<OD>"} and {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}'
)
_INSTRUCTIONS = ("system", "developer")
_TOOLS = ("tool", "function")
_ROLES = ("user", "assistant", *_INSTRUCTIONS)


@dataclass(frozen=True)
class Question:
    """What a conversation asks.

    Attributes:
        text: the text of its last message.
        image_url: the URL of its picture, most often a data URI.
        image_field: where the request holds the picture, such as "messages[0].content[1].image_url".
    """

    text: str
    image_url: str
    image_field: str


@dataclass(frozen=True)
class _Content:
    """The texts and pictures of one message, each picture with its place."""

    texts: list[str]
    pictures: list[tuple[str, str]]


def read_question(messages: Sequence[ChatMessage]) -> Question:
    """The question that a conversation ends with.

    Raises:
        InvalidRequest: no message, one of a wrong form, or the last one is not the user's.
        UnsupportedArgument: instructions, tools, or parts that are neither text nor picture.
        InvalidImage: no picture, or several.
        InvalidPrompt: no text.
    """
    if not messages:
        raise InvalidRequest("messages is empty: send one message of the user, with a text and a picture", field="messages")
    for index, message in enumerate(messages):
        _check_role(message, f"messages[{index}]")
    last = len(messages) - 1
    if messages[last].role != "user":
        raise InvalidRequest(
            f"the last message must be the user's, got {messages[last].role}: it is the question", field=f"messages[{last}]"
        )
    contents = [_content(messages[last], f"messages[{last}]")]
    for index in reversed(range(last)):
        if contents[-1].pictures:
            break
        if messages[index].role == "user":
            contents.append(_content(messages[index], f"messages[{index}]"))
    url, field = _picture(contents[-1].pictures)
    text = " ".join(filter(None, map(str.strip, contents[0].texts)))
    if not text:
        raise InvalidPrompt(
            'the last message has no text: add {"type": "text", "text": "<CAPTION>"} (any task of docs/tasks.md, or plain words)',
            field=f"messages[{last}].content",
        )
    return Question(text, url, field)


def _check_role(message: ChatMessage, where: str) -> None:
    """Refuse messages that the answer would have to follow and can't."""
    if message.role in _TOOLS:
        raise UnsupportedArgument(f"{where} is of role {message.role}, and the model calls no tools: leave it out", field=f"{where}.role")
    if message.role not in _ROLES:
        raise InvalidRequest(f"{where} has the role {message.role!r}; expected one of {', '.join(_ROLES)}", field=f"{where}.role")
    if message.role in _INSTRUCTIONS and any(text.strip() for text in _content(message, where).texts):
        raise UnsupportedArgument(
            f"{where} is of role {message.role}, and Florence-2 follows no instructions: leave it out, and choose the answer by the task "
            "(<CAPTION>, <OD>, …) in the user's message",
            field=where,
        )


def _picture(pictures: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The one picture and its place."""
    if not pictures:
        raise InvalidImage(
            'the messages hold no picture: add {"type": "image_url", "image_url": {"url": …}} with a data URI (data:image/png;base64,…) '
            "or an https URL",
            field="messages",
        )
    if len(pictures) > 1:
        raise InvalidImage(
            f"Florence-2 sees one picture at a time, and a message holds {len(pictures)}: send a request for each, at once if you like",
            field=pictures[1][1],
        )
    return pictures[0]


def _content(message: ChatMessage, where: str) -> _Content:
    """The texts and pictures of a message."""
    field = f"{where}.content"
    if message.content is None or isinstance(message.content, str):
        return _Content([message.content or ""], [])
    if not isinstance(message.content, list):
        raise InvalidRequest(f"{field} must be a text or {PARTS}; got {_json_type(message.content)}", field=field)
    found = _Content([], [])
    for part, at in _parts(message.content, field):
        kind = part.get("type")
        if kind == "text":
            found.texts.append(_string(part.get("text"), f"{at}.text"))
        elif kind == "image_url":
            found.pictures.append((_url(part.get("image_url"), f"{at}.image_url"), f"{at}.image_url"))
        else:
            shown = repr(kind[:32]) if isinstance(kind, str) else _json_type(kind)
            raise UnsupportedArgument(f"{at} is of type {shown}; text and image_url are taken: {PARTS}", field=f"{at}.type")
    return found


def _parts(content: Sequence[Any], field: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each part with its place."""
    for index, part in enumerate(content):
        at = f"{field}[{index}]"
        if not isinstance(part, dict):
            raise InvalidRequest(f"{at} must be an object, got {_json_type(part)}; a content is a text or {PARTS}", field=at)
        yield part, at


def _url(value: object, field: str) -> str:
    """The URL of a picture: in an object, as the API has it, or bare, as some clients write it."""
    if isinstance(value, dict):
        return _string(value.get("url"), f"{field}.url")
    return _string(value, field)


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a text, got {_json_type(value)}", field=field)
    return value


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
