"""vLLM in this process: its AsyncLLM with its own OpenAI serving layer, behind our port.

Everything OpenAI-shaped (chat templates, tools, reasoning, JSON schemas, logprobs, LoRA names) is vLLM's. Ours is only
the seam: see `vllm_call`. These paths move between vLLM releases; they live in the `vllm_*` files here and nowhere
else, the release is pinned, and the conformance suite guards them.
"""

# vLLM is typed for itself, not for those who import it.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from consumer.engine import tiny_model
from consumer.engine.port import Admit, Answer, Capacity, Engine, EngineEvent, EngineRequest, KvGroup, Need
from consumer.engine.vllm_plugin import FORKED
from schemas.config import EngineSection
from schemas.errors import ConfigError, EngineFailed, JobMalformed, UnknownEndpoint
from schemas.job import Endpoint

if TYPE_CHECKING:
    from consumer.engine.vllm_call import Call

log = logging.getLogger(__name__)

_DEATH_CHECK_S = 0.5
_LOAD_CHECK_S = 0.2
# Of one prompt in one step, while anything else runs: a few times what a step costs without any.
_PROMPT_STEP_TOKENS = 1024
# Where a load and its first request lead; the last three are of vLLM's engine process.
_PRELOADED = (
    "vllm.entrypoints.launchers.cli_args",
    "vllm.engine.arg_utils",
    "vllm.v1.engine.async_llm",
    "vllm.entrypoints.launchers.api_server.app_state",
    "consumer.engine.vllm_arguments",
    "consumer.engine.vllm_call",
    "consumer.engine.vllm_errors",
    "consumer.engine.vllm_tap",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.model_executor.model_loader",
)


def make(section: EngineSection, data_dir: Path) -> Engine:
    return VllmEngine(section, data_dir)


def preload() -> None:
    """All that a consumer and its engine process import, so that both can be forked with it; starts no thread.

    vLLM and its libraries read some variables now, from this process's environment.
    """
    for name in _PRELOADED:
        import_module(name)


def _split_long_prompts(config: Any, section: EngineSection) -> None:
    """Unless the user says otherwise: a prompt that is not alone is computed in parts, so that no step is very long."""
    asked = {key.replace("-", "_") for key in section.arguments}
    if "long_prefill_token_threshold" not in asked and config.scheduler_config.enable_chunked_prefill:
        threshold = min(_PROMPT_STEP_TOKENS, config.model_config.max_model_len)
        config.scheduler_config.long_prefill_token_threshold = threshold


def _fork_if_preloaded() -> None:
    """On CPU vLLM starts an engine process and a worker anew, and each imports everything again: twice 20 s of a core.
    Where a zygote has it all imported, and has run nothing, they are forked.
    """
    if os.environ.get(FORKED):  # noqa: TID251 - it crosses process starts
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"  # noqa: TID251 - vLLM reads no argument for it


def stream_interval(streams: int, *, smooth_below: int, interval_max: int) -> int:
    """Tokens per delta while so many streams share the front end.

    Its work per delta is what limits a small consumer (measured: 36-45 µs a token with 256 streams, beside 25 µs that
    no delta saves), and a reader sees no difference at such speeds.
    """
    return max(1, min(interval_max, streams // smooth_below))


def model_of(section: EngineSection, data_dir: Path) -> tuple[str, str]:
    """What vLLM should load, made first if it is one of ours; and its name where the folder's would be unhandy."""
    if section.model not in tiny_model.NAMES:
        return section.model, ""
    return str(tiny_model.ensure(data_dir / "models", section.model)), section.model


class VllmEngine:
    """See `consumer.engine.port` for the laws."""

    def __init__(
        self, section: EngineSection, data_dir: Path, *, smooth_below: int = 16, interval_max: int = 8
    ) -> None:
        self._section = section
        self._data_dir = data_dir
        self._smooth_below = smooth_below
        self._interval_max = interval_max
        # Counted here, not by the engine: in a burst all begin before its next step says so.
        self._streams = 0
        self._engine: Any = None
        self._state: Any = None
        self._tap: Any = None
        self._has_reasoning = False
        self._loading: asyncio.Future[Any] | None = None
        # Processes of this one that are not the engine's.
        self._others: set[Any] = set()
        self._stopping = False

    async def start(self) -> tuple[str, ...]:
        from consumer.engine.vllm_arguments import parse  # noqa: PLC0415

        # In a thread: loading takes from seconds to many minutes, and probes and signals must be answered meanwhile.
        model, name = await asyncio.to_thread(model_of, self._section, self._data_dir)
        arguments = await asyncio.to_thread(parse, model, self._section.arguments, name)
        try:
            await self._load(arguments)
        except ConfigError:
            raise
        except Exception as error:
            await self.stop()
            raise EngineFailed(f"vLLM did not start: {_reason(error)}") from error
        # From the engine's own configuration: vLLM chooses some models' parser while it loads.
        self._has_reasoning = bool(self._engine.vllm_config.structured_outputs_config.reasoning_parser)
        names: list[str] = arguments.served_model_name or [arguments.model]
        return tuple(names)

    async def generate(self, request: EngineRequest, admit: Admit) -> AsyncGenerator[EngineEvent, None]:
        from consumer.engine.vllm_call import Call, Mode  # noqa: PLC0415
        from consumer.engine.vllm_errors import engine_errors  # noqa: PLC0415

        with engine_errors():
            serve, body = self._handler(request)
            beams = self._beams(body)
            mode = Mode.QUIET
            # Beams are known only at their end.
            if request.stream and request.endpoint != Endpoint.EMBEDDINGS and beams is None:
                mode = Mode.RECORDED if self._needs_chunks(body) else Mode.TAPPED
            call = Call(admit, priority=request.priority, mode=mode, stream_interval=self._stream_interval, beams=beams)
            run = self._recorded if mode is Mode.RECORDED else self._tapped
            self._streams += mode is not Mode.QUIET
            try:
                async with aclosing(run(serve, body, call)) as events:
                    async for event in events:
                        yield event
            finally:
                self._streams -= mode is not Mode.QUIET

    def capacity(self) -> Capacity:
        capacity: Capacity = self._tap.capacity()
        return capacity

    async def wait_dead(self) -> str:
        while True:
            await asyncio.sleep(_DEATH_CHECK_S)
            if self._engine is not None and self._engine.errored and not self._stopping:
                return "vLLM's engine process is gone"

    async def stop(self) -> None:
        self._stopping = True
        await self._give_up_loading()
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(engine.shutdown, 5.0)

    async def _give_up_loading(self) -> None:
        """A thread cannot be stopped, but vLLM gives up a load whose processes are gone."""
        loading = self._loading
        while loading is not None and not loading.done():
            for child in set(multiprocessing.active_children()) - self._others:
                child.terminate()
            await asyncio.wait({loading}, timeout=_LOAD_CHECK_S)
        if loading is not None and not loading.cancelled() and loading.exception() is None:
            self._engine = loading.result()

    async def _load(self, arguments: Any) -> None:
        def load() -> Any:
            from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
            from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

            try:
                engine_arguments = AsyncEngineArgs.from_cli_args(arguments)
                engine_arguments.enable_log_requests = False
                config = engine_arguments.create_engine_config()
            except (ValueError, TypeError) as error:
                raise ConfigError(f"engine: {_reason(error)}", param="engine") from error
            if self._stopping:
                raise EngineFailed("stopped while it loaded")
            _fork_if_preloaded()
            _split_long_prompts(config, self._section)
            return AsyncLLM.from_vllm_config(
                config, stat_loggers=[self._make_tap], disable_log_stats=engine_arguments.disable_log_stats
            )

        from starlette.datastructures import State  # noqa: PLC0415

        self._others = set(multiprocessing.active_children())
        # Shielded: who cancels the start calls `stop`, and that must know what became of the load.
        self._loading = asyncio.ensure_future(asyncio.to_thread(load))
        self._engine = await asyncio.shield(self._loading)
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # noqa: PLC0415

        from consumer.engine.vllm_call import EngineProxy  # noqa: PLC0415

        config = self._engine.vllm_config
        groups = await self._kv_groups()
        # Where layers differ in what they keep, vLLM shares by rules of its own.
        is_shared = config.cache_config.enable_prefix_caching and len(groups) <= 1
        proxy: Any = EngineProxy(self._engine, shared_block_size=config.cache_config.block_size if is_shared else 0)
        self._state = State()
        await init_app_state(proxy, self._state, arguments, await self._engine.get_supported_tasks())
        self._tap.engine_is_ready(config, groups)

    async def _kv_groups(self) -> tuple[KvGroup, ...]:
        from consumer.engine.vllm_tap import kv_groups  # noqa: PLC0415

        config = self._engine.vllm_config
        metadata = await self._engine.engine_core.call_utility_async("get_kv_cache_group_metadata")
        return kv_groups(metadata, config.model_config.max_model_len, config.scheduler_config.max_num_batched_tokens)

    def _make_tap(self, vllm_config: Any, engine_index: int = 0) -> Any:
        from consumer.engine.vllm_tap import Tap  # noqa: PLC0415

        if self._tap is None:
            self._tap = Tap(vllm_config, engine_index, clock=time.monotonic)
        return self._tap

    def _handler(self, request: EngineRequest) -> tuple[Any, Any]:
        """The serving layer's method for the endpoint, and the body as its own validated request type."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest  # noqa: PLC0415
        from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest  # noqa: PLC0415

        try:
            fields = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise JobMalformed(f"body is not one JSON object: {error}", param="body") from error
        if not isinstance(fields, dict):
            raise JobMalformed("body must be a JSON object", param="body")
        # A job always has a whole answer; how its tokens travel is not the body's business.
        fields.pop("stream", None)
        fields.pop("stream_options", None)
        makers: dict[str, tuple[str, str, Any]] = {
            Endpoint.CHAT: ("openai_serving_chat", "create_chat_completion", ChatCompletionRequest),
            Endpoint.COMPLETIONS: ("openai_serving_completion", "create_completion", CompletionRequest),
            Endpoint.EMBEDDINGS: ("serving_embedding", "__call__", EmbeddingCompletionRequest),
        }
        attribute, method, kind = makers[request.endpoint]
        serving = getattr(self._state, attribute, None)
        if serving is None:
            raise UnknownEndpoint(f"this model does not serve {request.endpoint}", param="endpoint")
        return getattr(serving, method), kind.model_validate(fields)

    def _stream_interval(self) -> int:
        return stream_interval(self._streams, smooth_below=self._smooth_below, interval_max=self._interval_max)

    def _beams(self, body: Any) -> Need | None:
        if not getattr(body, "use_beam_search", False):
            return None
        tokens_max = getattr(body, "max_completion_tokens", None) or body.max_tokens
        context: int = self._engine.model_config.max_model_len
        return Need(prompt_tokens=0, output_tokens_max=min(tokens_max or context, context), sequences=body.n or 1)

    def _needs_chunks(self, body: Any) -> bool:
        """Whether plain text deltas would lose something that OpenAI's chunks carry."""
        return bool(
            (self._has_reasoning and hasattr(body, "messages"))
            or getattr(body, "tools", None)
            # In completions this is a number, and 0 asks for the chosen token's.
            or (body.logprobs is not None and body.logprobs is not False)
            or getattr(body, "prompt_logprobs", None) is not None
            or body.echo
            or body.return_token_ids
        )

    async def _tapped(self, serve: Any, body: Any, call: Call) -> AsyncGenerator[EngineEvent, None]:
        serving = _in_call(call, serve(body))
        async with aclosing(_events(serving, call)) as events:
            async for event in events:
                yield event
        yield _answer(serving.result())

    async def _recorded(self, serve: Any, body: Any, call: Call) -> AsyncGenerator[EngineEvent, None]:
        running = _in_call(call, _collect(serve, body.model_copy(update={"stream": True}), call))
        async with aclosing(_events(running, call)) as events:
            async for event in events:
                yield event
        running.result()
        call.replay()
        yield _answer(await _in_call(call, serve(body)))


def _in_call(call: Call, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """`work` as a task in which the engine proxy finds `call`."""
    from consumer.engine.vllm_call import current_call  # noqa: PLC0415

    token = current_call.set(call)
    try:
        return asyncio.ensure_future(work)
    finally:
        current_call.reset(token)


async def _events(task: asyncio.Task[Any], call: Call) -> AsyncGenerator[EngineEvent, None]:
    """What `task` brings into the call, until it ends; closing this aborts the request in the engine."""
    task.add_done_callback(call.wake)
    try:
        while not task.done() or call.events:
            if not call.events:
                await call.changed.wait()
            for event in call.taken():
                yield event
    finally:
        call.stop_waiting()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif not task.cancelled():
            # Read, so that a failure nobody waited for any more is not reported as lost.
            task.exception()


async def _collect(serve: Any, body: Any, call: Call) -> None:
    """Runs the serving layer's stream into `call.events`."""
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse  # noqa: PLC0415

    from consumer.engine.vllm_errors import of_response  # noqa: PLC0415

    stream = await serve(body)
    if isinstance(stream, ErrorResponse):
        raise of_response(stream)
    async with aclosing(stream):
        async for text in stream:
            if call.failure is not None:
                # vLLM's stream ends well whatever happens, its last chunk an error.
                raise call.failure
            chunk = text.removeprefix("data: ").strip()
            if chunk.startswith('{"error"'):
                raise of_response(ErrorResponse.model_validate_json(chunk))
            if chunk and chunk != "[DONE]":
                call.put_chunk(chunk.encode())
    if call.failure is not None:
        raise call.failure


def _answer(response: Any) -> Answer:
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse  # noqa: PLC0415

    from consumer.engine.vllm_errors import of_response  # noqa: PLC0415

    if isinstance(response, ErrorResponse):
        raise of_response(response)
    if hasattr(response, "model_dump_json"):
        body: bytes = response.model_dump_json().encode()
    else:
        body = bytes(response.body)
    usage = msgspec.json.decode(body, type=_Usage).usage
    details = usage.prompt_tokens_details
    return Answer(
        body=body,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
    )


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None


class _Usage(msgspec.Struct):
    usage: _Counts


def _reason(error: BaseException) -> str:
    """The innermost message; vLLM wraps several deep."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{error}" or type(error).__name__
