"""What a request says of itself before any tokenizer has seen it: its size, and whom it resembles. Pure.

Cheap, because every job that waits passes here: the body is read once, texts are measured and not decoded.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, cast

import msgspec

from schemas.backlog import Ticket
from schemas.job import Endpoint, Job

# Bytes of UTF-8 a token has on average: English about four of one byte, Chinese little more than one of three.
_BYTES_A_TOKEN = 4
# What a chat template puts around a message.
_TOKENS_A_MESSAGE = 4
# A picture or a sound; its own size says nothing of its tokens.
_TOKENS_A_PART = 576
# What vLLM generates for a completion that does not say.
_COMPLETION_TOKENS = 16
# So much of a plain prompt must be the same for it to count as shared.
_SHARED_CHARACTERS = 512
_SHARED_TOKENS = _SHARED_CHARACTERS // _BYTES_A_TOKEN
_INSTRUCTING = frozenset({"system", "developer"})
# Fields that change how an answer is sent or counted, and never what it says.
_NOT_OF_THE_ANSWER = frozenset(
    {"stream", "stream_options", "service_tier", "user", "metadata", "store", "priority", "request_id"}
)

_NONE = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    """What an estimate needs of an OpenAI request."""

    model: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE
    input: msgspec.Raw = _NONE
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    seed: int | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = _NONE


class _Part(msgspec.Struct):
    type: str = ""
    text: msgspec.Raw = _NONE


class _Tier(msgspec.Struct):
    service_tier: str | None = None


_body_decoder = msgspec.json.Decoder(_Body)
_messages_decoder = msgspec.json.Decoder(list[_Message])
_parts_decoder = msgspec.json.Decoder(list[_Part])
_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_tier_decoder = msgspec.json.Decoder(_Tier)
_fields_decoder = msgspec.json.Decoder(dict[str, Any])
_sorted_encoder = msgspec.json.Encoder(order="sorted")


def ticket_of_job(job: Job, *, not_before_unix_ms: int = 0, batch: str = "", window: str = "") -> Ticket:
    """Never raises: what is wrong with a body, the engine will say in its own words."""
    body = bytes(job.body)
    try:
        seen = _body_decoder.decode(body)
        prompt_tokens, prefix_key = _prompt_of(seen, job.endpoint)
    except msgspec.DecodeError:
        seen, prompt_tokens, prefix_key = _Body(), len(body) // _BYTES_A_TOKEN, 0
    return Ticket(
        prompt_tokens=prompt_tokens,
        output_tokens_max=_output_tokens_max(seen, job.endpoint),
        deadline_unix_ms=job.deadline_unix_ms,
        not_before_unix_ms=not_before_unix_ms,
        prefix_key=prefix_key,
        # Whoever watches his tokens come wants them computed for him.
        same_key=_same_key(job.endpoint, body) if _is_deterministic(seen, job.endpoint) and not job.reply_to else 0,
        batch=batch,
        window=window,
    )


def service_tier_of(body: bytes) -> str:
    """Of the body's top level; empty where it says none."""
    # Most say none, and looking for the word costs a tenth of reading them.
    if b'"service_tier"' not in body:
        return ""
    try:
        return _tier_decoder.decode(body).service_tier or ""
    except msgspec.DecodeError:
        return ""


def _prompt_of(body: _Body, endpoint: str) -> tuple[int, int]:
    """Tokens, and the key of what other prompts may share.

    Raises:
        msgspec.DecodeError: not what OpenAI's API has there.
    """
    if body.messages:
        return _chat(body)
    prompt = bytes(body.input if endpoint == Endpoint.EMBEDDINGS else body.prompt)
    tokens = _plain_tokens(prompt)
    shared = _beginning(prompt) if endpoint != Endpoint.EMBEDDINGS else b""
    return tokens, _key(bytes(body.model), shared) if shared else 0


def _chat(body: _Body) -> tuple[int, int]:
    messages = _messages_decoder.decode(body.messages)
    tokens = len(body.tools) // _BYTES_A_TOKEN
    shared = [bytes(body.tools)] if body.tools else []
    for message in messages:
        content = bytes(message.content)
        tokens += _TOKENS_A_MESSAGE + _content_tokens(content)
        if message.role in _INSTRUCTING:
            shared.append(content)
    return tokens, _key(bytes(body.model), *shared) if shared else 0


def _content_tokens(content: bytes) -> int:
    if not content.startswith(b"["):
        return _text_tokens(content)
    parts = _parts_decoder.decode(content)
    return sum(_text_tokens(bytes(part.text)) if part.type == "text" else _TOKENS_A_PART for part in parts)


def _plain_tokens(prompt: bytes) -> int:
    """Of a text, a list of texts, a list of token ids, or a list of those."""
    if not prompt.startswith(b"["):
        return _text_tokens(prompt)
    members = [bytes(member) for member in _raws_decoder.decode(prompt)]
    if not members or not members[0].startswith((b'"', b"[")):
        return len(members)
    return sum(_plain_tokens(member) for member in members)


def _beginning(prompt: bytes) -> bytes:
    """What a plain prompt may share with others; empty where it is too short for that to matter."""
    if prompt.startswith(b'"'):
        if len(prompt) <= _SHARED_CHARACTERS:
            return b""
        text = cast("str", msgspec.json.decode(prompt))
        return text[:_SHARED_CHARACTERS].encode() if len(text) > _SHARED_CHARACTERS else b""
    if prompt.startswith(b"["):
        members = [bytes(member) for member in _raws_decoder.decode(prompt)]
        if members and members[0][:1] in (b'"', b"["):
            return _beginning(members[0])
        return b",".join(members[:_SHARED_TOKENS]) if len(members) > _SHARED_TOKENS else b""
    return b""


def _text_tokens(text: bytes) -> int:
    """Of a JSON text; its quotes are none of it."""
    return -(-max(0, len(text) - 2) // _BYTES_A_TOKEN) if text.startswith(b'"') else 0


def _output_tokens_max(body: _Body, endpoint: str) -> int:
    if endpoint == Endpoint.EMBEDDINGS:
        return 0
    each = body.max_completion_tokens or body.max_tokens
    if each is None and endpoint == Endpoint.COMPLETIONS:
        each = _COMPLETION_TOKENS
    return max(0, each or 0) * max(1, body.n or 1)


def _is_deterministic(body: _Body, endpoint: str) -> bool:
    return endpoint == Endpoint.EMBEDDINGS or body.temperature == 0 or body.seed is not None


def _same_key(endpoint: str, body: bytes) -> int:
    try:
        fields = _fields_decoder.decode(body)
        for field in _NOT_OF_THE_ANSWER & fields.keys():
            del fields[field]
        return _key(endpoint.encode(), _sorted_encoder.encode(fields))
    except (msgspec.DecodeError, RecursionError):
        return 0


def _key(*parts: bytes) -> int:
    """64 bits, the same in every process; 0 is kept for "none"."""
    # JSON holds no zero byte, so no two texts can trade their border.
    digest = blake2b(b"\0".join(parts), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
