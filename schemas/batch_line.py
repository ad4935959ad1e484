"""One line of an OpenAI batch file, in and out; the same format as `vllm run-batch`."""

from __future__ import annotations

import msgspec

from schemas.errors import JobMalformed, PenstockError
from schemas.job import field_of
from schemas.result import ErrorDetail, Result, detail_of, error_body


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """A request. `body` stays as it came."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class BatchResponse(msgspec.Struct, frozen=True, kw_only=True):
    status_code: int
    request_id: str
    body: msgspec.Raw


class BatchOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `error` is set where no engine answered: cancelled, expired, dead, or an unreadable line."""

    id: str
    custom_id: str
    response: BatchResponse | None
    error: ErrorDetail | None = None


_line_decoder = msgspec.json.Decoder(BatchLine)
_output_decoder = msgspec.json.Decoder(BatchOutput)
_encoder = msgspec.json.Encoder()


def decode_line(text: bytes) -> BatchLine:
    """
    Raises:
        JobMalformed: not JSON, or a field missing or of the wrong type; `param` names it.
    """
    try:
        text.decode("utf-8")
        line = _line_decoder.decode(text)
    except UnicodeDecodeError as error:
        raise JobMalformed(
            f"line is not UTF-8 at byte {error.start}", param="line", code="invalid_json_line"
        ) from error
    except msgspec.ValidationError as error:
        raise JobMalformed(f"line: {error}", param=field_of(error) or "line") from error
    except msgspec.DecodeError as error:
        raise JobMalformed(f"line is not JSON: {error}", param="line", code="invalid_json_line") from error
    except RecursionError as error:
        raise JobMalformed("line is nested too deeply", param="body") from error
    if not line.custom_id:
        raise JobMalformed("custom_id must not be empty", param="custom_id")
    if line.method != "POST":
        raise JobMalformed(f"method must be POST, not {line.method!r}", param="method")
    return line


def decode_output(text: bytes) -> BatchOutput:
    """
    Raises:
        msgspec.DecodeError: not an output line, or a torn one.
    """
    try:
        return _output_decoder.decode(text)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


def encode_output(output: BatchOutput) -> bytes:
    """One line, newline included."""
    return _encoder.encode(output) + b"\n"


def output_of(result: Result) -> BatchOutput:
    """What the output file says of a stored result."""
    answered = bytes(result.body) != b"null"
    response = BatchResponse(status_code=result.status_code, request_id=result.id, body=result.body)
    return BatchOutput(
        id=f"batch_req_{result.id}",
        custom_id=result.custom_id,
        response=response if answered else None,
        error=None if answered else result.error,
    )


def rejected_output(line_id: str, custom_id: str, error: PenstockError) -> BatchOutput:
    """What the output file says of a line that was never submitted."""
    detail = detail_of(error)
    response = BatchResponse(status_code=error.status_code, request_id=line_id, body=error_body(detail))
    return BatchOutput(id=f"batch_req_{line_id}", custom_id=custom_id, response=response, error=detail)
