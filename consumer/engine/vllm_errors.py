"""vLLM's exceptions stop here: what a request did wrong, or that the engine is gone, in our words."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from schemas.errors import (
    EngineBusy,
    EngineDied,
    JobFault,
    JobMalformed,
    JobRejected,
    PenstockError,
    PromptTooLong,
    UnknownModel,
)

# vLLM says so in words only.
_TOO_LONG = re.compile(
    r"maximum context length|longer than the maximum model length|maximum model length", re.IGNORECASE
)
# "(parameter=…, value=…)": the value may be the prompt.
_QUOTED_VALUE = re.compile(r"\s*\(parameter=.*\)\s*$", re.DOTALL)
_NOT_FOUND = 404
_SERVER_ERROR = 500
_BUSY = 503
# What a panic in a Rust library (tokenizers, pydantic) becomes: no Exception, so it would pass every net.
_PANIC = "PanicException"


@contextmanager
def engine_errors() -> Generator[None]:
    """Raises ours from theirs."""
    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        raise translated(error) from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        # Without its words: a panic may quote the prompt.
        raise JobRejected("vLLM's tokenizer or validator broke on this request", param="body") from error


def translated(error: Exception) -> PenstockError:
    """`error` as one of ours."""
    import pydantic  # noqa: PLC0415
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: PLC0415

    if isinstance(error, EngineDeadError):
        return EngineDied("vLLM's engine process is gone; this consumer will drain")
    if isinstance(error, pydantic.ValidationError):
        return _malformed(error)
    if isinstance(error, EngineGenerateError) and isinstance(error.__cause__, Exception):
        return translated(error.__cause__)
    if isinstance(error, RecursionError):
        return JobMalformed("the body is nested too deeply", param="body")

    from vllm.entrypoints.serve import create_error_response  # noqa: PLC0415

    return of_response(create_error_response(error))


def of_response(response: Any) -> PenstockError:
    """VLLM's `ErrorResponse` as one of ours."""
    info = response.error
    message, param, status = _QUOTED_VALUE.sub("", str(info.message)), info.param, int(info.code)
    if status == _NOT_FOUND:
        return UnknownModel(message, param=param or "model")
    if _TOO_LONG.search(message):
        return PromptTooLong(message, param="messages" if param in {None, "input_tokens"} else param)
    if status == _BUSY:
        # The user's own limits on vLLM's queue (`max_num_queued_reqs`).
        return EngineBusy(message)
    if status < _SERVER_ERROR:
        return JobRejected(message, param=param or _guessed_param(message))
    return JobFault(message)


def _malformed(error: Any) -> JobMalformed:
    """Pydantic lists every alternative of a union; the shallowest first error is what a person got wrong."""
    first = min(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
    path = [str(part) for part in first["loc"]]
    message = str(first["msg"]).removeprefix("Value error, ")
    if path and not path[0].islower():
        # Parts of a message are looked at one by one, under the name of vLLM's own class.
        path = ["messages"]
    where = ".".join(path) or _guessed_param(message) or "body"
    return JobMalformed(f"{where}: {message}", param=where)


# Validators that look at the whole request name no field; the message does.
_FIELDS = re.compile(
    r"\b(temperature|top_p|top_k|min_p|max_tokens|max_completion_tokens|min_tokens|n|seed|stop|logprobs|top_logprobs|"
    r"presence_penalty|frequency_penalty|repetition_penalty|logit_bias|response_format|json_schema|structured_outputs|"
    r"tools|tool_choice|messages|prompt|stream_options|best_of|echo|priority)\b"
)


def _guessed_param(message: str) -> str | None:
    found = _FIELDS.search(message)
    if found:
        return found.group(1)
    return "response_format" if re.search(r"grammar|schema|guided", message, re.IGNORECASE) else None
