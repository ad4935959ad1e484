"""The form of an upload, piece by piece as it arrives. Pure: the file's bytes are handed on, never kept."""

from __future__ import annotations

import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from schemas.errors import JobMalformed

_FIELD_BYTES_MAX = 16 * 1024
_FIELDS_MAX = 32
_BOUNDARY = re.compile(rb"[\x20-\x7e]{1,200}")


class Form:
    """`feed` what comes, and take what it returns; at the end `fields` and `filename` are there."""

    def __init__(self, content_type: bytes) -> None:
        """
        Raises:
            JobMalformed: it is no multipart form.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
            shown = content_type.decode("latin-1")[:80] or "none"
            raise JobMalformed(
                f"content-type must be multipart/form-data with a boundary, not {shown}", param="content-type"
            )
        self.fields: dict[str, str] = {}
        # None until the file's part has begun.
        self.filename: str | None = None
        self.is_whole = False
        self._name = ""
        self._is_file = False
        self._value: list[bytes] = []
        self._value_size = 0
        self._header: list[bytes] = []
        self._header_value: list[bytes] = []
        self._disposition = b""
        self._found: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_header_field": lambda data, start, end: self._header.append(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.append(data[start:end]),
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the file in `data`.

        Raises:
            JobMalformed: it is no form, has two files, or a field that is far too long.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise JobMalformed(f"the form cannot be read: {error}", param="body") from error
        found, self._found = self._found, []
        return found

    def _on_part_begin(self) -> None:
        self._name, self._is_file = "", False
        self._value, self._value_size = [], 0
        self._disposition = b""

    def _on_header_end(self) -> None:
        if b"".join(self._header).lower() == b"content-disposition":
            self._disposition = b"".join(self._header_value)
        self._header, self._header_value = [], []

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name != "file":
            return
        if self.filename is not None:
            raise JobMalformed("the form has two fields `file`", param="file")
        self._is_file = True
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace")[:255] or "upload"

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._found.append(data[start:end])
            return
        self._value_size += end - start
        if self._value_size > _FIELD_BYTES_MAX or len(self.fields) >= _FIELDS_MAX:
            raise JobMalformed(f"field {self._name[:80]!r} is too long, or one too many", param=self._name[:80] or None)
        self._value.append(data[start:end])

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = b"".join(self._value).decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_whole = True
