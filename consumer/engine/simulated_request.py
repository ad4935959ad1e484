"""From an OpenAI body to what the simulated engine will answer; everything a real engine would refuse is refused here.

Only the common fields are read; others are ignored, as a server does. `simulated` is our own: see `Behaviour`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from consumer.engine.block_keys import block_keys
from consumer.engine.port import EngineRequest, Need
from consumer.engine.simulated_instance import instance_of
from consumer.engine.simulated_settings import Settings
from consumer.engine.simulated_words import BYTES_PER_TOKEN, Pieces, Text, Words, digest_of, natural_length, tokens_of
from schemas.errors import JobMalformed, JobRejected, PromptTooLong, UnknownEndpoint, UnknownModel
from schemas.job import Endpoint, field_of

_Body = TypeVar("_Body")
_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_TokenIds = Annotated[list[int], msgspec.Meta(min_length=1)]
# What a chat template adds around a message.
_TOKENS_PER_MESSAGE = 4


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`"simulated": {…}` in a body, for tests and benches; no real engine knows the field.

    `output_tokens`: the answer ends by itself after so many, which nobody can know beforehand. `fail`: `raise` fails
    this request alone, `crash_engine` kills the engine under every request; both once the request has produced
    `after_tokens`.
    """

    fail: Literal["", "raise", "crash_engine"] = ""
    after_tokens: _AtLeastOne = 1
    output_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join([part.text for part in self.content or ()])


class _JsonSchema(msgspec.Struct):
    name: str
    schema: Any = msgspec.field(default_factory=dict[str, Any])


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _Sampling(msgspec.Struct, kw_only=True):
    """What chat and completions share."""

    model: str | None = None
    max_tokens: _AtLeastOne | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    ignore_eos: bool = False
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    response_format: _ResponseFormat | None = None
    simulated: Behaviour = Behaviour()


class _Chat(_Sampling, kw_only=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: _AtLeastOne | None = None


class _Completion(_Sampling, kw_only=True):
    # Checked by hand: msgspec takes one kind of list in a union.
    prompt: str | list[Any]


class _Embedding(msgspec.Struct, kw_only=True):
    input: str | list[Any]
    model: str | None = None
    dimensions: _AtLeastOne | None = None
    encoding_format: Literal["float", "base64"] = "float"
    simulated: Behaviour = Behaviour()


class Choice(msgspec.Struct, frozen=True):
    """One answer to be made."""

    prompt_tokens: int
    text: Text
    finish_reason: str
    block_keys: tuple[int, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request, and all of its answers."""

    endpoint: str
    model: str
    need: Need
    choices: list[Choice]
    # Counted once a prompt, however many choices it gets.
    prompt_tokens: int
    fault: Behaviour | None = None
    # Embeddings only.
    inputs: list[str] = []
    dimensions: int = 0
    is_base64: bool = False


_chat_decoder = msgspec.json.Decoder(_Chat)
_completion_decoder = msgspec.json.Decoder(_Completion)
_embedding_decoder = msgspec.json.Decoder(_Embedding)


def plan_of(request: EngineRequest, model: str, settings: Settings) -> Plan:
    """
    Raises:
        JobRejected: the request is at fault; `param` names the field.
    """
    match request.endpoint:
        case Endpoint.CHAT:
            return _chat_plan(request.body, model, settings)
        case Endpoint.COMPLETIONS:
            return _completion_plan(request.body, model, settings)
        case Endpoint.EMBEDDINGS:
            return _embedding_plan(request.body, model, settings)
        case _:
            raise UnknownEndpoint(f"the simulated engine does not serve {request.endpoint}", param="endpoint")


def _chat_plan(data: bytes, model: str, settings: Settings) -> Plan:
    body = _decoded(_chat_decoder, data)
    texts = [message.text for message in body.messages]
    tokens = sum([tokens_of(text) + _TOKENS_PER_MESSAGE for text in texts])
    roles = "/".join([message.role for message in body.messages])
    tokens_max = body.max_completion_tokens or body.max_tokens
    prompts = [("\x1e".join([roles, *texts]), tokens)]
    return _sampled(Endpoint.CHAT, "messages", body, prompts, tokens_max, model, settings)


def _completion_plan(data: bytes, model: str, settings: Settings) -> Plan:
    body = _decoded(_completion_decoder, data)
    prompts = _prompts(body.prompt, "prompt")
    # OpenAI's default for completions; chat may fill the context.
    return _sampled(Endpoint.COMPLETIONS, "prompt", body, prompts, body.max_tokens or 16, model, settings)


def _sampled(
    endpoint: Endpoint,
    field: str,
    body: _Sampling,
    prompts: list[tuple[str, int]],
    tokens_max: int | None,
    model: str,
    settings: Settings,
) -> Plan:
    _check_model(body.model, model)
    longest = max([tokens for _, tokens in prompts])
    tokens_max = _output_tokens_max(longest, tokens_max, settings, field)
    if body.min_tokens > tokens_max:
        raise JobRejected(f"min_tokens {body.min_tokens} is over max_tokens {tokens_max}", param="min_tokens")
    # vLLM's rule: they would all be the same.
    if body.temperature == 0 and (body.n or 1) > 1:
        raise JobRejected(f"n must be 1 at temperature 0, not {body.n}", param="n")
    schema_text = _schema_text(body.response_format)
    choices: list[Choice] = []
    for prompt, prompt_tokens in prompts:
        keys = _block_keys(prompt, prompt_tokens, settings)
        for ordinal in range(body.n or 1):
            digest = digest_of(prompt, ordinal, body.seed or 0)
            choice = _choice(prompt_tokens, digest, schema_text, body, tokens_max, settings)
            choices.append(msgspec.structs.replace(choice, block_keys=keys))
    need = Need(
        prompt_tokens=longest,
        output_tokens_max=tokens_max,
        output_tokens_min=tokens_max if body.ignore_eos else body.min_tokens,
        sequences=len(choices),
        block_keys=choices[0].block_keys if len(prompts) == 1 else (),
    )
    return Plan(
        endpoint=endpoint,
        model=model,
        need=need,
        choices=choices,
        prompt_tokens=sum([tokens for _, tokens in prompts]),
        fault=body.simulated if body.simulated.fail else None,
    )


def _block_keys(prompt: str, prompt_tokens: int, settings: Settings) -> tuple[int, ...]:
    """Keys of the prompt's full blocks, each standing for everything up to its end."""
    if not settings.prefix_caching:
        return ()
    keys = block_keys(prompt.encode(), settings.block_size * BYTES_PER_TOKEN)
    return keys[: prompt_tokens // settings.block_size]


def _choice(
    prompt_tokens: int, digest: bytes, schema_text: str, body: _Sampling, tokens_max: int, settings: Settings
) -> Choice:
    if schema_text:
        pieces = Pieces(schema_text, tokens_max)
        return Choice(prompt_tokens, pieces, "stop" if pieces.is_whole else "length")
    natural = max(body.min_tokens, body.simulated.output_tokens or natural_length(digest, settings.output_tokens_mean))
    if body.ignore_eos or natural > tokens_max:
        return Choice(prompt_tokens, Words(digest, tokens_max), "length")
    return Choice(prompt_tokens, Words(digest, natural), "stop")


def _embedding_plan(data: bytes, model: str, settings: Settings) -> Plan:
    body = _decoded(_embedding_decoder, data)
    _check_model(body.model, model)
    prompts = _prompts(body.input, "input")
    longest = max([tokens for _, tokens in prompts])
    _output_tokens_max(longest, 1, settings, "input")
    return Plan(
        endpoint=Endpoint.EMBEDDINGS,
        model=model,
        need=Need(prompt_tokens=longest, output_tokens_max=1, sequences=len(prompts)),
        # A vector costs its prefill, and nobody sees the token.
        choices=[Choice(tokens, Words(b"", 1), "stop") for _, tokens in prompts],
        prompt_tokens=sum([tokens for _, tokens in prompts]),
        fault=body.simulated if body.simulated.fail else None,
        inputs=[prompt for prompt, _ in prompts],
        dimensions=body.dimensions or settings.embedding_dimensions,
        is_base64=body.encoding_format == "base64",
    )


def _decoded(decoder: msgspec.json.Decoder[_Body], data: bytes) -> _Body:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        field = field_of(error) or "body"
        raise JobMalformed(f"{field}: {str(error).partition(' - at')[0]}", param=field) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JobMalformed(f"body is not one JSON object: {error}", param="body") from error


def _prompts(value: str | list[Any], field: str) -> list[tuple[str, int]]:
    """OpenAI's four forms: a text, texts, token ids, lists of token ids. Each with its number of tokens."""
    if isinstance(value, str):
        return [(value, tokens_of(value))]
    if value and all(isinstance(item, int) for item in value):
        value = [value]
    if not value:
        raise JobMalformed(f"{field} must not be empty", param=field)
    prompts: list[tuple[str, int]] = []
    for item in value:
        if isinstance(item, str):
            prompts.append((item, tokens_of(item)))
            continue
        try:
            ids = msgspec.convert(item, _TokenIds)
        except msgspec.ValidationError as error:
            raise JobMalformed(f"{field} must be text or token ids: {error}", param=field) from error
        prompts.append((" ".join(map(str, ids)), len(ids)))
    return prompts


def _check_model(asked: str | None, model: str) -> None:
    if asked is not None and asked != model:
        raise UnknownModel(f"the model {asked!r} does not exist here; this consumer serves {model!r}", param="model")


def _output_tokens_max(prompt_tokens: int, asked: int | None, settings: Settings, field: str) -> int:
    context = settings.context_tokens
    if prompt_tokens >= context:
        raise PromptTooLong(
            f"prompt is {prompt_tokens} tokens, the model takes {context} with at least one to answer", param=field
        )
    if asked is not None and prompt_tokens + asked > context:
        raise PromptTooLong(
            f"prompt of {prompt_tokens} tokens and max_tokens {asked} are over the model's {context}",
            param="max_tokens",
        )
    return asked or context - prompt_tokens


def _schema_text(wanted: _ResponseFormat | None) -> str:
    """The answer that `response_format` asks for; empty for plain text."""
    if wanted is None or wanted.type == "text":
        return ""
    if wanted.type == "json_object":
        return '{"answer": "water"}'
    if wanted.json_schema is None:
        raise JobMalformed("response_format.json_schema is missing", param="response_format.json_schema")
    return msgspec.json.encode(instance_of(wanted.json_schema.schema)).decode()
