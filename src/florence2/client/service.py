"""The client: a server's address, a key, a configuration, and a method for each thing a server does.

Every method has a twin to be awaited; both run the same coroutine of ``calls``. Connections are kept open between calls until
``close`` or the end of the ``with`` block. Knows nothing of what travels.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from florence2.client import calls, management, streams, wire
from florence2.client.answers import ModelDescription, RegisteredModels, ServerInfo, are_same
from florence2.client.configuration import HTTPClientMode, InferenceConfiguration
from florence2.client.connection import Awaiting, Blocking, Connection, iterate_blocking, run_blocking
from florence2.client.errors import InvalidParameter, ModelNotSelected, WrongClientMode
from florence2.client.http_clients import awaiting_client, blocking_client
from florence2.client.inputs import ImageInputs
from florence2.client.lmm_awaited import AwaitedLmm
from florence2.client.lmm_blocking import BlockingLmm
from florence2.client.lmm_events import LmmEvent
from florence2.client.lmm_iterators import AwaitedLmmStream, LmmStream
from florence2.client.lmm_requests import LmmCall
from florence2.client.lmm_streamed import StreamedLmm
from florence2.client.options import LmmOptions, OnError
from florence2.client.progress import Progress
from florence2.client.wire import Request, Target

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
DEFAULT_URL = "http://localhost:9001"
KEY_VARIABLE = "FLORENCE2_API_KEY"


class InferenceHTTPClient(BlockingLmm, AwaitedLmm, StreamedLmm):
    """A client of a Florence-2 server: this project's, or any with the same interface.

    May be used by several threads and tasks at once. ``with client:`` or ``close`` ends its connections; ``async with client:``
    keeps connections open between awaited calls, which otherwise open their own.

    Args:
        api_url: the server's address.
        api_key: its key; left out, ``FLORENCE2_API_KEY`` of the environment. Keys of other programs are not looked at. An empty text is no
            key.

    Raises:
        InvalidParameter: ``api_url`` is no http address.
    """

    def __init__(self, api_url: str = DEFAULT_URL, api_key: str | None = None) -> None:
        self._url = wire.server_url(api_url)
        if api_key is None:
            api_key = os.environ.get(KEY_VARIABLE)
        self._api_key = wire.checked_key(api_key)
        self._mode = wire.mode_of(self._url)
        self._configuration = InferenceConfiguration()
        self._selected_model: str | None = None
        self._own_servers: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._http: httpx2.Client | None = None
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    @classmethod
    def init(cls, api_url: str, api_key: str | None = None) -> InferenceHTTPClient:
        """A client; the same as the constructor."""
        return cls(api_url, api_key)

    @property
    def api_url(self) -> str:
        """The server's address."""
        return self._url

    @property
    def inference_configuration(self) -> InferenceConfiguration:
        """The settings that hold."""
        return self._configuration

    @property
    def client_mode(self) -> HTTPClientMode:
        """Where the key goes: by the address, unless a mode was selected."""
        return self._mode

    @property
    def selected_model(self) -> str | None:
        """The model of calls that name none."""
        return self._selected_model

    def configure(self, inference_configuration: InferenceConfiguration) -> Self:
        """Change the settings of the calls to come."""
        self._configuration = inference_configuration
        return self

    def select_model(self, model_id: str) -> Self:
        """Choose the model of calls that name none."""
        self._selected_model = model_id
        return self

    def select_api_v0(self) -> Self:
        """Send the key as hosted endpoints expect it."""
        self._mode = HTTPClientMode.V0
        return self

    def select_api_v1(self) -> Self:
        """Send the key as servers of one's own expect it."""
        self._mode = HTTPClientMode.V1
        return self

    @contextmanager
    def use_api_v0(self) -> Iterator[Self]:
        """``select_api_v0`` for the length of a ``with`` block."""
        with self._mode_kept():
            yield self.select_api_v0()

    @contextmanager
    def use_api_v1(self) -> Iterator[Self]:
        """``select_api_v1`` for the length of a ``with`` block."""
        with self._mode_kept():
            yield self.select_api_v1()

    @contextmanager
    def use_configuration(self, inference_configuration: InferenceConfiguration) -> Iterator[Self]:
        """Other settings for the length of a ``with`` block."""
        before = self._configuration
        try:
            yield self.configure(inference_configuration)
        finally:
            self._configuration = before

    @contextmanager
    def use_model(self, model_id: str) -> Iterator[Self]:
        """Another model for the length of a ``with`` block."""
        before = self._selected_model
        try:
            yield self.select_model(model_id)
        finally:
            self._selected_model = before

    def get_server_info(self) -> ServerInfo:
        """The server's name, version and id; requested without the key."""
        return self._block(partial(management.get_server_info, target=self._target()))

    async def get_server_info_async(self) -> ServerInfo:
        """As ``get_server_info``, awaited."""
        return await self._await(partial(management.get_server_info, target=self._target()))

    def list_loaded_models(self) -> RegisteredModels:
        """The models that the server has loaded."""
        return self._block(self._on_models(wire.registry_request))

    async def list_loaded_models_async(self) -> RegisteredModels:
        """As ``list_loaded_models``, awaited."""
        return await self._await(self._on_models(wire.registry_request))

    def get_model_description(self, model_id: str, allow_loading: bool = True) -> ModelDescription:
        """What the server says about a model, which it loads first where ``allow_loading`` says so and it is not loaded.

        Raises:
            ModelNotInitializedError: the server does not list it.
        """
        return self._block(partial(management.describe_model, target=self._managing(), model_id=model_id, allow_loading=allow_loading))

    async def get_model_description_async(self, model_id: str, allow_loading: bool = True) -> ModelDescription:
        """As ``get_model_description``, awaited."""
        return await self._await(
            partial(management.describe_model, target=self._managing(), model_id=model_id, allow_loading=allow_loading)
        )

    def load_model(self, model_id: str, set_as_default: bool = False) -> RegisteredModels:
        """Have the server load a model; ``set_as_default`` selects it.

        Returns:
            All models that are loaded then.
        """
        models = self._block(self._on_models(partial(wire.load_request, model_id=model_id)))
        return self._loaded(models, model_id if set_as_default else None)

    async def load_model_async(self, model_id: str, set_as_default: bool = False) -> RegisteredModels:
        """As ``load_model``, awaited."""
        models = await self._await(self._on_models(partial(wire.load_request, model_id=model_id)))
        return self._loaded(models, model_id if set_as_default else None)

    def unload_model(self, model_id: str) -> RegisteredModels:
        """Have the server drop a model; if it was selected, none is then.

        Returns:
            The models that are still loaded.
        """
        models = self._block(self._on_models(partial(wire.unload_request, model_id=model_id)))
        return self._unloaded(models, model_id)

    async def unload_model_async(self, model_id: str) -> RegisteredModels:
        """As ``unload_model``, awaited."""
        models = await self._await(self._on_models(partial(wire.unload_request, model_id=model_id)))
        return self._unloaded(models, model_id)

    def unload_all_models(self) -> RegisteredModels:
        """Have the server drop all models; none is selected then."""
        models = self._block(self._on_models(partial(wire.unload_request, model_id=None)))
        return self._unloaded(models, self._selected_model)

    async def unload_all_models_async(self) -> RegisteredModels:
        """As ``unload_all_models``, awaited."""
        models = await self._await(self._on_models(partial(wire.unload_request, model_id=None)))
        return self._unloaded(models, self._selected_model)

    def close(self) -> None:
        """End the connections of blocking calls; a later call opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if loop not in self._kept:
            self._kept[loop] = _Kept(awaiting_client())
        self._kept[loop].num_blocks += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        kept = self._kept[loop]
        kept.num_blocks -= 1
        if not kept.num_blocks:
            del self._kept[loop]
            await kept.http.aclose()
        self.close()

    def __repr__(self) -> str:
        return f"InferenceHTTPClient({self._url!r}, {'with' if self._api_key else 'without'} key)"

    @contextmanager
    def _mode_kept(self) -> Iterator[None]:
        before = self._mode
        try:
            yield
        finally:
            self._mode = before

    def _target(self) -> Target:
        return Target(self._url, self._api_key, self._mode, self._configuration)

    def _lmm_call(
        self,
        method: str,
        model_id: str | None,
        fields: dict[str, Any],
        model_id_in_path: bool,
        on_error: OnError,
        typed: bool,
        progress: Progress,
    ) -> LmmCall:
        known = {"prompt", "max_new_tokens", "enable_thinking", *LmmOptions.__annotations__}
        for name in fields.keys() - known:
            closest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {closest[0]}?" if closest else f"; there are {', '.join(sorted(known))}"
            raise InvalidParameter(f"{method} has no option {name}{hint}", field=name)
        if on_error not in ("fail", "item"):
            raise InvalidParameter(f"on_error must be 'fail' or 'item', got {on_error!r}", field="on_error")
        model_id = model_id if model_id is not None else self._selected_model
        if model_id is None:
            raise ModelNotSelected("name a model with model_id=, or choose one with select_model", field="model_id")
        given = {name: value for name, value in fields.items() if value is not None}
        return LmmCall(self._target(), model_id, given, model_id_in_path, on_error, typed, progress, self._own_servers)

    def _answer(self, call: LmmCall, given: ImageInputs) -> Any:
        return self._block(partial(calls.infer, call=call, given=given))

    async def _answered(self, call: LmmCall, given: ImageInputs) -> Any:
        return await self._await(partial(calls.infer, call=call, given=given))

    def _streamed(self, call: LmmCall, given: ImageInputs) -> LmmStream[Any]:
        connection = Blocking(self._blocking_http())
        return LmmStream(self._events(connection, call, given), connection.interrupt)

    def _streamed_awaited(self, call: LmmCall, given: ImageInputs) -> AwaitedLmmStream[Any]:
        async def events() -> AsyncGenerator[LmmEvent[Any], None]:
            async with self._awaiting_http() as http, aclosing(streams.stream(Awaiting(http), call, given)) as stream:
                async for event in stream:
                    yield event

        return AwaitedLmmStream(events())

    def _events(self, connection: Connection, call: LmmCall, given: ImageInputs) -> Generator[LmmEvent[Any], None, None]:
        """The events of a call; they hold the client, whose connections end with it."""
        yield from iterate_blocking(streams.stream(connection, call, given))

    def _on_models(self, make_request: Callable[[Target], Request]) -> Callable[[Connection], Coroutine[Any, Any, RegisteredModels]]:
        target = self._managing()
        return partial(management.get_models, target=target, request=make_request(target))

    def _managing(self) -> Target:
        """The server as one that manages models."""
        if self._mode is HTTPClientMode.V0:
            raise WrongClientMode("hosted endpoints do not manage models; select_api_v1() if this server does")
        return self._target()

    def _loaded(self, models: RegisteredModels, default: str | None) -> RegisteredModels:
        self._selected_model = default or self._selected_model
        return models

    def _unloaded(self, models: RegisteredModels, model_id: str | None) -> RegisteredModels:
        if model_id and self._selected_model and are_same(model_id, self._selected_model):
            self._selected_model = None
        return models

    def _block(self, function: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        return run_blocking(function(Blocking(self._blocking_http())))

    async def _await(self, function: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        async with self._awaiting_http() as http:
            return await function(Awaiting(http))

    def _blocking_http(self) -> httpx2.Client:
        """The connections of blocking calls."""
        with self._lock:
            if self._http is None:
                self._http = blocking_client()
                weakref.finalize(self, self._http.close)
            return self._http

    def _awaiting_http(self) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        """The connections of an awaited call: those that are kept in this loop, or some of its own."""
        kept = self._kept.get(asyncio.get_running_loop())
        return awaiting_client() if kept is None else nullcontext(kept.http)


@dataclass
class _Kept:
    """Connections of one event loop, shared by the ``async with`` blocks that are open in it."""

    http: httpx2.AsyncClient
    num_blocks: int = 0
