"""One job on its way through vLLM's serving layer, and the engine proxy that finds it there.

The serving layer renders, tokenises and validates, then asks "its engine" to generate. That engine is our proxy: it
knows which job is asking by a context variable, waits for the job to be admitted with its exact size, taps the tokens
as the output processor makes them, and gives the serving layer the one, whole output it builds the response from.
"""

# vLLM is typed for itself, not for those who import it.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from enum import Enum, auto
from typing import Any

import msgspec
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from consumer.engine.block_keys import block_keys
from consumer.engine.port import Admit, EngineEvent, Need, RawChunk, TextDelta

current_call: ContextVar[Call] = ContextVar("current_call")


class Mode(Enum):
    """What the serving layer is asked for."""

    # The whole response; deltas are tapped on the way.
    TAPPED = auto()
    # The whole response; nobody listens.
    QUIET = auto()
    # The stream; outputs are recorded for the whole response.
    RECORDED = auto()
    # The whole response from what was recorded; the engine is not asked.
    REPLAYED = auto()


class Call:
    """State of one `generate` of the adapter."""

    def __init__(
        self, admit: Admit, *, priority: int, mode: Mode, stream_interval: Callable[[], int], beams: Need | None = None
    ) -> None:
        self.mode = mode
        self.priority = priority
        self.stream_interval = stream_interval
        self.events: list[EngineEvent] = []
        self.changed = asyncio.Event()
        self.recorded: dict[int, RequestOutput] = {}
        # What ended the engine's part of a recorded stream; vLLM's stream itself only says so in a chunk.
        self.failure: Exception | None = None
        self.prompts = 0
        # Tokens recorded since the last chunk.
        self._unsent_tokens = 0
        # Beam search comes as many requests of one token each; this is what it needs as a whole.
        self._beams = beams
        self._admit = admit
        self._needs: list[Need] = []
        # Each tells how many tokens one prompt's sequences have produced.
        self._meters: list[Callable[[], int]] = []
        self._admission: asyncio.Future[None] | None = None

    def expect(self, need: Need) -> int:
        """Called for each prompt of the request before any is run; returns its ordinal."""
        if self._beams is not None:
            need = msgspec.structs.replace(self._beams, prompt_tokens=need.prompt_tokens)
        self._needs.append(need)
        self.prompts += 1
        return self.prompts - 1

    def measure(self, meter: Callable[[], int]) -> None:
        """From now on `meter` counts tokens of this request, too."""
        self._meters.append(meter)

    async def admitted(self) -> None:
        """Admits the request once, as a whole: its prompts would otherwise wait for each other's room."""
        if self._admission is None:
            self._admission = asyncio.ensure_future(self._admit(self._whole_need()))
        await asyncio.shield(self._admission)

    def stop_waiting(self) -> None:
        """The request is given up: so is its place at the door."""
        if self._admission is not None and not self._admission.done():
            self._admission.cancel()

    def tap(self, prompt_ordinal: int, sequences: int, output: RequestOutput) -> None:
        """New tokens, as deltas of OpenAI's choices: prompt by prompt, each with its `n`."""
        for completion in output.outputs:
            tokens = len(completion.token_ids)
            if tokens or completion.text:
                choice = prompt_ordinal * sequences + completion.index
                self.events.append(TextDelta(choice, completion.text, tokens))
        if self.events:
            self.changed.set()

    def count(self, output: RequestOutput) -> None:
        """Tokens that the next chunk is made of."""
        self._unsent_tokens += sum(len(completion.token_ids) for completion in output.outputs)

    def put_chunk(self, chunk: bytes) -> None:
        self.events.append(RawChunk(chunk, self._unsent_tokens))
        self._unsent_tokens = 0
        self.changed.set()

    def taken(self) -> list[EngineEvent]:
        self.changed.clear()
        events, self.events = self.events, []
        return events

    def wake(self, _: object = None) -> None:
        self.changed.set()

    def replay(self) -> None:
        """From here on the recorded outputs stand in for the engine."""
        self.mode, self.prompts = Mode.REPLAYED, 0

    def _whole_need(self) -> Need:
        if len(self._needs) == 1:
            return msgspec.structs.replace(self._needs[0], produced=self._produced)
        # Several prompts are rare and similar: as many sequences of the largest.
        return Need(
            prompt_tokens=max(need.prompt_tokens for need in self._needs),
            output_tokens_max=max(need.output_tokens_max for need in self._needs),
            output_tokens_min=min(need.output_tokens_min for need in self._needs),
            sequences=sum(need.sequences for need in self._needs),
            produced=self._produced,
        )

    def _produced(self) -> int:
        return sum([meter() for meter in self._meters])


class EngineProxy:
    """The real AsyncLLM for everything but `generate` and `encode`."""

    def __init__(self, engine: Any, *, shared_block_size: int = 0) -> None:
        self._engine = engine
        # Tokens in a block that equal prompts share; 0: they share nothing.
        self._shared_block_size = shared_block_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        call = current_call.get()
        options["priority"] = call.priority
        if call.mode is Mode.REPLAYED:
            call.prompts += 1
            return _replay(call.recorded[call.prompts - 1])
        ordinal = call.expect(self._need_of(prompt, sampling_params, options))
        if call.mode is Mode.RECORDED:
            return self._record(call, ordinal, prompt, sampling_params, request_id, options)
        return self._tap(call, ordinal, prompt, sampling_params, request_id, options)

    def encode(self, prompt: Any, pooling_params: Any, request_id: str, **options: Any) -> AsyncGenerator[Any, None]:
        """Embeddings hold no KV beyond their step, but they do pass the same door."""
        call = current_call.get()
        call.expect(Need(prompt_tokens=len(_token_ids(prompt)), output_tokens_max=1, output_tokens_min=1))
        options["priority"] = call.priority
        return self._encode(call, prompt, pooling_params, request_id, options)

    def _need_of(self, prompt: Any, params: Any, options: dict[str, Any]) -> Need:
        tokens = _token_ids(prompt)
        most: int = params.max_tokens
        # Only `ignore_eos` without any stop says how long an answer will be.
        is_exact = params.ignore_eos and not params.stop and not params.stop_token_ids
        keys: tuple[int, ...] = ()
        is_shared = self._shared_block_size and not params.skip_reading_prefix_cache
        if is_shared and isinstance(prompt, dict) and prompt.get("type") == "token":
            lora = options.get("lora_request")
            apart = (prompt.get("cache_salt"), lora.lora_name if lora else None)
            keys = block_keys(tokens, self._shared_block_size, apart)
        return Need(
            prompt_tokens=len(tokens),
            output_tokens_max=most,
            output_tokens_min=most if is_exact else params.min_tokens,
            sequences=params.n,
            block_keys=keys,
        )

    def _meter(self, internal_id: str, sequences: int) -> Callable[[], int]:
        """Counts a request's tokens where vLLM's output processor keeps them, also those not handed out yet."""
        states = self._engine.output_processor.request_states
        # Several choices are requests of their own.
        ids = [internal_id] if sequences == 1 else [f"{index}_{internal_id}" for index in range(sequences)]
        found = [states[one].detokenizer for one in ids if one in states]
        counts = [detokenizer.num_output_tokens for detokenizer in found if detokenizer is not None]
        if len(counts) == 1:
            only: Callable[[], int] = counts[0]
            return only
        return lambda: sum([count() for count in counts])

    async def _encode(
        self, call: Call, prompt: Any, params: Any, request_id: str, options: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        await call.admitted()
        async for output in self._engine.encode(prompt, params, request_id, **options):
            yield output

    async def _record(
        self, call: Call, ordinal: int, prompt: Any, params: Any, request_id: str, options: dict[str, Any]
    ) -> AsyncGenerator[RequestOutput, None]:
        """One token a delta whatever the load: vLLM's parsers of tools and reasoning are written for that."""
        try:
            await call.admitted()
            whole = _Whole()
            call.measure(whole.tokens)
            async for output in self._engine.generate(prompt, params, request_id, **options):
                # Copied before the serving layer sees it: merging extends the lists in place.
                whole.add(_copied(output))
                call.count(output)
                yield output
            call.recorded[ordinal] = whole.output
        except Exception as error:
            call.failure = call.failure or error
            raise

    async def _tap(
        self, call: Call, ordinal: int, prompt: Any, params: Any, request_id: str, options: dict[str, Any]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Runs the request with one wake-up at its end; tokens are taken where vLLM hands them over.

        vLLM's own `generate` wakes a task for each token of each request. The collector it feeds is an object per
        request whose `put` is called by the output processor; we take its place.
        """
        await call.admitted()
        wants_deltas = call.mode is Mode.TAPPED
        if wants_deltas:
            params.output_kind = RequestOutputKind.DELTA
            params.stream_interval = call.stream_interval()
        pump = _Pump(call if wants_deltas else None, ordinal, params.n)
        queue = await self._engine.add_request(request_id, prompt, params, **options)
        try:
            call.measure(self._meter(queue.request_id, params.n))
            queue.put = pump.put
            # What came before we took its place.
            early = queue.output
            if early is not None:
                queue.output = None
                pump.put(early)
            if wants_deltas:
                pump.pace = self._pacer(queue.request_id, call.stream_interval)
            yield await pump.finished
        except BaseException:
            await self._engine.abort(queue.request_id, internal=True)
            raise
        finally:
            queue.close()

    def _pacer(self, internal_id: str, wanted: Callable[[], int]) -> Callable[[], None] | None:
        """Sets how many tokens the request's next delta has, by the load at the time.

        To be called when a delta was just sent: then nothing is held back that a smaller interval would lose.
        """
        processor = self._engine.output_processor
        state = processor.request_states.get(internal_id)
        if state is None:
            # Several choices are requests of their own below this id, or it has finished already.
            return None
        least: int = processor.stream_interval

        def pace() -> None:
            interval = max(least, wanted())
            if state.stream_interval == 1:
                # vLLM keeps no count of what it sent while it sends every token.
                state.sent_tokens_offset = state.detokenizer.num_output_tokens()
            state.stream_interval = interval

        return pace


class _Pump:
    """Takes one request's outputs from the output processor, in place of vLLM's collector."""

    def __init__(self, call: Call | None, ordinal: int, sequences: int) -> None:
        self.finished: asyncio.Future[RequestOutput] = asyncio.get_running_loop().create_future()
        # After each delta; see `_pacer`.
        self.pace: Callable[[], None] | None = None
        self._call = call
        self._ordinal = ordinal
        self._sequences = sequences
        self._whole = _Whole()

    def put(self, output: Any) -> None:
        if self.finished.done():
            return
        if isinstance(output, Exception):
            self.finished.set_exception(output)
            return
        if self._call is not None:
            self._call.tap(self._ordinal, self._sequences, output)
            if self.pace is not None:
                self.pace()
        self._whole.add(output)
        if output.finished:
            self.finished.set_result(self._whole.output)


class _Whole:
    """Merges one request's outputs into the one that a not-streamed run would have given."""

    def __init__(self) -> None:
        self._merged: RequestOutput | None = None

    def add(self, output: RequestOutput) -> None:
        if self._merged is None:
            self._merged = output
        else:
            self._merged.add(output, aggregate=True)

    def tokens(self) -> int:
        return sum([len(one.token_ids) for one in self._merged.outputs]) if self._merged is not None else 0

    @property
    def output(self) -> RequestOutput:
        assert self._merged is not None
        # With n > 1 choices join in the order they first spoke.
        self._merged.outputs.sort(key=lambda completion: completion.index)
        return self._merged


def _token_ids(prompt: Any) -> list[int]:
    tokens: list[int] = (prompt.get("prompt_token_ids") or []) if isinstance(prompt, dict) else []
    return tokens


def _copied(output: RequestOutput) -> RequestOutput:
    import copy  # noqa: PLC0415

    twin = copy.copy(output)
    twin.outputs = [copy.copy(completion) for completion in output.outputs]
    for completion in twin.outputs:
        completion.token_ids = list(completion.token_ids)
        if completion.logprobs is not None:
            completion.logprobs = copy.copy(completion.logprobs)
    return twin


async def _replay(output: RequestOutput) -> AsyncGenerator[RequestOutput, None]:
    yield output
