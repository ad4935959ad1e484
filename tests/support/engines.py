"""Engines for tests: each lives on an event loop in a thread of its own, so that one serves many synchronous tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from consumer.engine.port import Answer, Engine, EngineEvent, EngineRequest, Need, RawChunk, TextDelta
from consumer.engine.registry import environment_defaults, make_engine
from schemas.config import EngineSection, EngineValue
from schemas.job import Endpoint
from tests.support.processes import children_of_this_process

T = TypeVar("T")

# Scarce on purpose: preemption must be possible to see, and a context of 2048 tokens still fits.
VLLM_ARGUMENTS: dict[str, EngineValue] = {
    "enforce_eager": True,
    "block_size": 32,
    "num_gpu_blocks_override": 257,
    "max_num_seqs": 64,
    "max_model_len": 2048,
}
SIMULATED_ARGUMENTS: dict[str, EngineValue] = {
    "blocks": 256,
    "block_size": 32,
    "sequences_max": 64,
    "context_tokens_max": 2048,
    "step_s": 0.0005,
}
_WAIT_S = 120.0
# vLLM takes half a minute on two idle cores, and minutes where others work beside it.
_START_S = 400.0

Send = Callable[[EngineRequest], Coroutine[Any, Any, "Outcome"]]


class Outcome(msgspec.Struct):
    """Everything one `generate` did, in order."""

    needs: list[Need] = []
    events: list[EngineEvent] = []

    @property
    def answer(self) -> Answer:
        last = self.events[-1]
        assert isinstance(last, Answer)
        return last

    @property
    def body(self) -> dict[str, Any]:
        whole: dict[str, Any] = json.loads(self.answer.body)
        return whole

    @property
    def chunks(self) -> list[TextDelta | RawChunk]:
        return [event for event in self.events if not isinstance(event, Answer)]

    def streamed(self, choice: int = 0) -> str:
        """What a reader of the deltas has seen."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta) and event.choice == choice)

    def text(self, choice: int = 0) -> str:
        """What the whole answer says."""
        chosen = self.body["choices"][choice]
        text: str = chosen["message"]["content"] if "message" in chosen else chosen["text"]
        return text


class EngineInThread:
    """A started engine of `kind`, and the loop it runs on."""

    def __init__(self, kind: str, arguments: dict[str, EngineValue], data_dir: Path, model: str = "tiny") -> None:
        section = msgspec.convert({"kind": kind, "model": model, "arguments": arguments}, EngineSection)
        self.kind = kind
        for name, value in environment_defaults(section).items():
            os.environ.setdefault(name, value)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{kind}-engine", daemon=True)
        self._thread.start()
        self.engine: Engine = make_engine(section, data_dir)
        others = set(children_of_this_process("EngineCore"))
        try:
            self.models = self.run(self.engine.start(), _START_S)
        except BaseException:
            self.close()
            raise
        # vLLM's own; killing them is how it dies.
        self.processes = [pid for pid in children_of_this_process("EngineCore") if pid not in others]

    def run(self, work: Coroutine[Any, Any, T], seconds: float = _WAIT_S) -> T:
        """The result of `work`, run on the engine's loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def generate(self, request: EngineRequest) -> Outcome:
        return self.run(self.collect(request))

    def generate_all(self, requests: list[EngineRequest]) -> list[Outcome]:
        """All of them at once."""

        async def together() -> list[Outcome]:
            return list(await asyncio.gather(*[self.collect(request) for request in requests]))

        return self.run(together())

    async def collect(self, request: EngineRequest, admit: Callable[[Need], Awaitable[None]] | None = None) -> Outcome:
        outcome = Outcome()

        async def admitted(need: Need) -> None:
            outcome.needs.append(need)
            if admit is not None:
                await admit(need)

        async with aclosing(self.engine.generate(request, admitted)) as events:
            async for event in events:
                outcome.events.append(event)
        return outcome

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether `condition` came true in time, looked at on the engine's loop."""
        return self.run(_comes_true(condition, seconds))

    async def wait_running(self, sequences: int) -> None:
        """Until the engine runs that many."""
        came = await _comes_true(lambda: self.engine.capacity().running >= sequences, 20)
        assert came, self.engine.capacity()

    def is_empty(self) -> bool:
        capacity = self.engine.capacity()
        return capacity.blocks_free == capacity.blocks_total and capacity.running == 0 and capacity.waiting == 0

    def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.run(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)
        self._loop.close()


async def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    # The port has no event for it, on purpose: capacity is looked at when it is needed.
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    return condition()


@contextlib.contextmanager
def running_engine(
    kind: str, data_dir: Path, *, model: str = "tiny", **arguments: EngineValue
) -> Generator[EngineInThread]:
    """One of your own; for vLLM that takes half a minute, so prefer the fixture `vllm_engine`."""
    defaults = VLLM_ARGUMENTS if kind == "vllm" else SIMULATED_ARGUMENTS
    engine = EngineInThread(kind, {**defaults, **arguments}, data_dir, model)
    try:
        yield engine
    finally:
        engine.close()


class Requests:
    """Makes requests with ids that no other test uses."""

    _made = 0

    @classmethod
    def chat(cls, text: str, *, stream: bool = True, priority: int = 0, **fields: Any) -> EngineRequest:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
        return cls.of(Endpoint.CHAT, body, stream=stream, priority=priority)

    @classmethod
    def completion(cls, prompt: str | list[Any], *, stream: bool = True, **fields: Any) -> EngineRequest:
        return cls.of(Endpoint.COMPLETIONS, {"prompt": prompt, "temperature": 0, **fields}, stream=stream)

    @classmethod
    def of(cls, endpoint: str, body: object, *, stream: bool = True, priority: int = 0) -> EngineRequest:
        cls._made += 1
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return EngineRequest(
            request_id=f"request-{cls._made}", endpoint=endpoint, body=data, stream=stream, priority=priority
        )
