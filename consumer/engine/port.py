"""The Engine port: what a consumer needs of an inference engine, and the laws every engine keeps.

Laws, checked by `tests/conformance/test_engine.py` against every implementation:

1. `generate` yields any number of `TextDelta` or `RawChunk`, then exactly one `Answer`, then ends.
2. It calls `admit` exactly once, with exact prompt tokens, before the engine sees the request; nothing is held in the
   KV cache until `admit` returns. If `admit` raises, so does `generate`, and the engine never heard of the request.
3. Closing the generator, or cancelling its task, aborts the request and frees its blocks within a second.
4. A request at fault raises a `JobRejected` that names the field, and disturbs no other request.
5. A dead engine raises `EngineDied` from every open `generate`, and `wait_dead` returns the reason.
6. `capacity` is synchronous, cheap, and never older than one engine step while anything runs.
7. When nothing runs, `capacity().blocks_free == blocks_total`.
8. The same request with temperature 0 gives the same text, streamed or not.
9. What waits inside the engine goes by `priority`, lower first, then first come.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

import msgspec


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One OpenAI request for the engine. `request_id` is unique among the running."""

    request_id: str
    endpoint: str
    body: bytes
    priority: int = 0
    # False: nobody listens, so the engine need not produce deltas.
    stream: bool = True


def _nothing_yet() -> int:
    return 0


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a request will ask of the KV cache, known exactly once it is rendered and tokenised."""

    prompt_tokens: int
    # The most, and the least, one sequence produces; equal where the request says how long its answer is.
    output_tokens_max: int
    output_tokens_min: int = 0
    sequences: int = 1
    # One key for each full block of the prompt, that of everything up to its end; empty where the cache shares none.
    block_keys: tuple[int, ...] = ()
    # Read at any time: tokens produced until now, over all sequences.
    produced: Callable[[], int] = _nothing_yet


Admit = Callable[[Need], Awaitable[None]]


class TextDelta(msgspec.Struct, frozen=True):
    """More text of one choice, made of `tokens` tokens."""

    choice: int
    text: str
    tokens: int


class RawChunk(msgspec.Struct, frozen=True):
    """One OpenAI stream chunk as JSON, where plain text would lose something (tools, reasoning, logprobs)."""

    chunk: bytes
    tokens: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole OpenAI response, never streamed form, as JSON."""

    body: bytes
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


EngineEvent = TextDelta | RawChunk | Answer


class KvGroup(msgspec.Struct, frozen=True):
    """Layers whose blocks come and go together. Every group takes blocks from the one pool."""

    # Tokens in one block.
    block_size: int
    # A sequence never holds more blocks of this group than these; 0: it holds all of its tokens.
    blocks_max: int = 0


class StepCost(msgspec.Struct, frozen=True):
    """What a step takes, learned from the latest: a line through sequences and prompt tokens. Seconds."""

    base_s: float = 0.0
    per_sequence_s: float = 0.0
    per_prefill_token_s: float = 0.0

    def of(self, sequences: int, prefill_tokens: int = 0) -> float:
        return self.base_s + self.per_sequence_s * sequences + self.per_prefill_token_s * prefill_tokens


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The engine as of its latest step. Blocks are KV-cache blocks, over all data-parallel ranks."""

    blocks_total: int
    blocks_free: int
    block_size: int
    sequences_max: int
    context_tokens_max: int
    running: int = 0
    waiting: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    # Empty: one group of `block_size`.
    groups: tuple[KvGroup, ...] = ()
    # Prompt tokens one step computes at most.
    step_tokens_max: int = 8192
    # And of any one prompt, while something else runs; 0: no less.
    prompt_step_tokens_max: int = 0
    # Steps made, the recent mean of what one takes while anything runs, and what makes it longer.
    steps: int = 0
    step_s: float = 0.0
    cost: StepCost = StepCost()


class Engine(Protocol):
    """See the module docstring for the laws."""

    async def start(self) -> tuple[str, ...]:
        """Loads the model; returns the names it answers to.

        Raises:
            ConfigError: an engine argument is unknown or wrong; names it.
            EngineFailed: it could not start; says why.
        """
        ...

    def generate(self, request: EngineRequest, admit: Admit) -> AsyncGenerator[EngineEvent, None]: ...

    def capacity(self) -> Capacity: ...

    async def wait_dead(self) -> str: ...

    async def stop(self) -> None: ...
