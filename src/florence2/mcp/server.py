"""The tools behind the Model Context Protocol: what is listed, and what becomes of a call.

In: the protocol's requests. Out: its answers; what is wrong with a call is the tool's error, in words that say what to do. Errors of this
program's own stay in its log. Knows nothing of standard input and HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from florence2.background import in_thread
from florence2.errors import CheckpointError, Florence2Error, MissingExtra
from florence2.mcp.answers import as_text
from florence2.mcp.drawing import MIME_TYPE, drawn
from florence2.mcp.model import AnsweringModel
from florence2.mcp.pictures import Pictures
from florence2.mcp.tools import TOOLS, Tool
from florence2.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

    from florence2.results import Result
    from florence2.tasks.prompt import Prompt

NAME = "florence2"
INTERNAL = "The model failed to answer. Call again; if it fails again, tell the user that the log of florence2 mcp has the cause."
PROGRESS_S = 5.0
# What the library's messages call a thing in Python, and what a call of a tool does.
_WORDS = ((r"\b(\w+)=True\b", r"\1: true"), (r"\bregion=\(x1, y1, x2, y2\)", "region [x1, y1, x2, y2]"), (r"\b(text|region)=", r"\1"))

# Why a model can't be loaded, which whoever calls can pass on to the user.
_NOT_LOADED = (CheckpointError, MissingExtra)

logger = logging.getLogger(__name__)
Context = ServerRequestContext[Any]


def make_server(model: AnsweringModel, pictures: Pictures, note: str = "") -> Server[Any]:
    """The server of the protocol.

    Args:
        model: what answers.
        pictures: what may be read.
        note: what else assistants should know of the model.
    """
    tools = [_described(tool, pictures.policy.allow_urls) for tool in TOOLS.values()]

    async def list_tools(context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await _called(model, pictures, context, params)

    return Server(
        NAME,
        version=__version__,
        title="Florence-2",
        instructions=instructions(model.name, pictures, note),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def instructions(model: str, pictures: Pictures, note: str = "") -> str:
    """What an assistant should know before its first call."""
    no_files = "no local files (the user may allow folders with --allow)"
    folders = f"local files below {pictures.folders}" if pictures.folders.roots else no_files
    urls = "https URLs of public hosts" if pictures.policy.allow_urls else "no URLs"
    said = f"Look at images with the vision model Florence-2 ({model}). {note}".strip()
    images = f"Images may be: {folders}; {urls}; data URIs."
    return _as_unicode(f"{said} {images} All coordinates are pixels of the original image, x before y, from its upper left corner.")


def _as_unicode(text: str) -> str:
    """A text as the protocol can carry it: bytes of a folder's name that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _described(tool: type[Tool], allow_urls: bool) -> types.Tool:
    """A tool as the protocol lists it."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.model_json_schema(),
        output_schema=tool.answer_type.model_json_schema(mode="serialization"),
        annotations=types.ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=allow_urls),
    )


async def _called(model: AnsweringModel, pictures: Pictures, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    """The answer to one call, or its error."""
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:80]!r}; there are {', '.join(TOOLS)}")
    try:
        given = {name: value for name, value in (params.arguments or {}).items() if value is not None}  # as some hosts leave out
        call = TOOLS[params.name].model_validate(given)
        prompts = call.prompts()
        pictures.check(call.image)
        prepared = await _prepared(model, prompts, context)
        picture = await pictures.read(call.image)
        results = await model.answer(picture, prepared, call.options)
        return await _answered(call, picture, results, model.name)
    except ValidationError as error:
        return _refused(_wrong_arguments(TOOLS[params.name], error))
    except Exception as error:
        return _refused(_message(error))


async def _prepared(model: AnsweringModel, prompts: Sequence[Prompt], context: Context) -> Sequence[Any]:
    """The prompts for the model; a host that asked for it hears meanwhile that the model is loaded."""
    prepared = asyncio.ensure_future(model.prepare(prompts))
    num_waits = 0
    try:
        while not (await asyncio.wait([prepared], timeout=PROGRESS_S))[0]:
            num_waits += 1
            await context.session.report_progress(num_waits, message=f"{model.name} is being loaded")
        return prepared.result()
    finally:
        prepared.cancel()


async def _answered(call: Tool, picture: Image, results: Sequence[Result], model: str) -> types.CallToolResult:
    """The answer of a tool: its values, their text, and the drawing that was asked for."""
    answer = call.answer(results, model)
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=as_text(answer))]
    if call.draw:
        data = await in_thread("florence2-mcp-draw", partial(drawn, picture, results))
        content.append(types.ImageContent(type="image", data=base64.b64encode(data).decode("ascii"), mime_type=MIME_TYPE))
    return types.CallToolResult(content=content, structured_content=answer.model_dump(mode="json", exclude_none=True))


def _refused(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=_as_unicode(message))], is_error=True)


def _message(error: Exception) -> str:
    """What a caller may read of an error; that of one of this program's own goes to the log."""
    if isinstance(error, Florence2Error) and (error.status != 500 or isinstance(error, _NOT_LOADED)):
        message = error.message
        for pattern, words in _WORDS:
            message = re.sub(pattern, words, message)
        return message
    logger.error("a call failed: %s: %s", type(error).__name__, error, exc_info=None if isinstance(error, Florence2Error) else error)
    return INTERNAL


def _wrong_arguments(tool: type[Tool], error: ValidationError) -> str:
    """What is wrong with the arguments of a call, each on a line, without repeating what may be a whole image."""
    lines = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(map(str, each["loc"])) or "arguments"
        if each["type"] == "extra_forbidden":
            lines.append(f"there is no argument {name[:80]!r}; {tool.name} takes {', '.join(tool.model_fields)}")
        elif each["type"] == "missing":
            lines.append(f"{name} is missing: {tool.model_fields[name].description}")
        else:
            lines.append(f"{name}: {each['msg'][:1].lower()}{each['msg'][1:]}")
    return "\n".join(lines[:8])
