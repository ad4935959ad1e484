"""Which lines of a batch file still need an answer. Pure: it sees lines and ids, never files.

Every line has an id of its own, derived from the run and from what the line says, so that a run which was killed finds
its answers again, in the output and at the broker, and asks for nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from producer import ids
from schemas.batch_line import BatchLine, decode_line, decode_output
from schemas.errors import ConfigError, JobMalformed
from schemas.job import ENDPOINTS, Endpoint


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """Lies beside the output while a run is not over: what makes it repeatable."""

    run_id: str
    input_sha256: str
    pool: str
    tenant: str
    # Where the jobs are: an embedded broker of this run's own, or one that outlives it.
    broker: Literal["own", "shared"]


class Todo(msgspec.Struct, frozen=True, kw_only=True):
    """A line to be submitted."""

    job_id: str
    line: BatchLine


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A line that never becomes a job; its output line says why."""

    line_id: str
    custom_id: str
    error: JobMalformed


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What an output file holds already."""

    ids: set[str]
    failed: int
    # Where its last whole line ends: what lies behind was torn by a kill.
    length: int


class Ledger:
    """Reads the input once, line by line; remembers an id for each, nothing else."""

    def __init__(self, run_id: str, written: Iterable[str] = ()) -> None:
        self._run_id = run_id
        self._written = set(written)
        self._seen: set[str] = set()
        self.lines = 0
        self.skipped = 0

    def take(self, number: int, text: bytes) -> Todo | Rejected | None:
        """What to do about line `number`; None for an empty one and for one that is answered already."""
        if not text.strip():
            return None
        self.lines += 1
        try:
            line = decode_line(text)
            checked_url(line)
            job_id = ids.job_id_of_line(self._run_id, line.custom_id)
            if job_id in self._seen:
                raise JobMalformed(
                    f"line {number}: custom_id {line.custom_id!r} was used by an earlier line",
                    param="custom_id",
                    code="duplicate_custom_id",
                )
        except JobMalformed as error:
            return self._rejected(number, text, error)
        self._seen.add(job_id)
        if job_id in self._written:
            self.skipped += 1
            return None
        return Todo(job_id=job_id, line=line)

    def _rejected(self, number: int, text: bytes, error: JobMalformed) -> Rejected | None:
        line_id = ids.line_id(self._run_id, number)
        if line_id in self._written:
            self.skipped += 1
            return None
        named = JobMalformed(_numbered(number, error.message), param=error.param, code=error.code)
        return Rejected(line_id=line_id, custom_id=custom_id_of(text), error=named)


def _numbered(number: int, message: str) -> str:
    """`message` of `decode_line`, with the line's number."""
    if message.startswith(f"line {number}"):
        return message
    if message.startswith("line is "):
        return f"line {number} {message.removeprefix('line ')}"
    return f"line {number}: {message.removeprefix('line: ')}"


def checked_url(line: BatchLine) -> None:
    if line.url not in ENDPOINTS:
        raise JobMalformed(f"url {line.url!r} is not one of {', '.join(Endpoint)}", param="url", code="invalid_url")


class _CustomId(msgspec.Struct):
    custom_id: str = ""


_custom_id_decoder = msgspec.json.Decoder(_CustomId)


def custom_id_of(text: bytes) -> str:
    """The custom_id of a line that is wrong elsewhere; "" when it cannot be read."""
    try:
        custom_id = _custom_id_decoder.decode(text).custom_id
        custom_id.encode()
    except (msgspec.DecodeError, UnicodeError):
        return ""
    return custom_id


def written(lines: Iterable[bytes]) -> Written:
    """What the output says, given its lines with their line ends.

    Raises:
        ConfigError: a line that is not the last is no output line; names its number.
    """
    found: set[str] = set()
    failed = 0
    length = 0
    torn_at = 0
    for number, text in enumerate(lines, start=1):
        if torn_at:
            raise ConfigError(f"output line {torn_at} is not a batch answer; is this another file?")
        try:
            if not text.endswith(b"\n"):
                raise msgspec.DecodeError("torn")
            if text.strip():
                output = decode_output(text)
                found.add(output.id.removeprefix("batch_req_"))
                failed += output.error is not None or (
                    output.response is not None and output.response.status_code != 200
                )
        except msgspec.DecodeError:
            torn_at = number
            continue
        length += len(text)
    return Written(ids=found, failed=failed, length=length)


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without line ends; a byte order mark some editors put first is no mistake."""
    for number, text in enumerate(lines, start=1):
        yield number, (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).rstrip(b"\r\n")
