"""Token frames: what a consumer sends to a reply inbox while jobs run.

A frame is a JSON array of events: everything one inbox gets from one engine step, for all of its jobs. Each event has
`type`, `job` and `seq`; `seq` counts the events of one attempt of one job from 0, so a gap or a restart is visible.
"""

from __future__ import annotations

import msgspec

from schemas.result import Result


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", tag_field="type", omit_defaults=True):
    """An engine has begun. An attempt above the last one seen means: forget the tokens so far, they come again."""

    job: str
    seq: int
    attempt: int
    consumer: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta", tag_field="type", omit_defaults=True):
    """More text of choice number `choice`; `tokens` says how many tokens it was made of."""

    job: str
    seq: int
    text: str
    tokens: int = 1
    choice: int = 0


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk", tag_field="type", omit_defaults=True):
    """One OpenAI stream chunk as the engine's serving layer made it (tool calls, reasoning, logprobs)."""

    job: str
    seq: int
    chunk: msgspec.Raw
    tokens: int = 0


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="type", omit_defaults=True):
    """The result is stored. It is in the frame when it is small, else only in the results stream."""

    job: str
    seq: int
    result: Result | None = None


Event = Started | Delta | Chunk | Finished

_decoder = msgspec.json.Decoder(list[Event])
_encoder = msgspec.json.Encoder()


def encode_frame(events: list[Event]) -> bytes:
    return _encoder.encode(events)


def decode_frame(payload: bytes) -> list[Event]:
    """
    Raises:
        msgspec.DecodeError: not a frame.
    """
    try:
        return _decoder.decode(payload)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
