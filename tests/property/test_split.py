"""Lines are the same however their bytes arrive, and reading may begin after any of them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from producer.gateway.batches.split import Line, Splitter

TEXTS = st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b" ")), max_size=12)


def split(pieces: list[bytes], **start: int) -> list[Line]:
    splitter = Splitter(8, **start)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.finish()


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 200), max_size=8))
def test_lines_do_not_depend_on_how_their_bytes_come(texts: list[bytes], ends: bool, cuts: list[int]) -> None:
    data = b"\n".join(texts) + (b"\n" if ends else b"")

    lines = split(pieces_of(data, cuts))

    whole = data.removesuffix(b"\n").split(b"\n") if data else []
    assert [line.number for line in lines] == list(range(1, len(whole) + 1))
    assert [line.is_too_long for line in lines] == [len(text) > 8 for text in whole]
    for line, text in zip(lines, whole, strict=True):
        shown = text.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else text
        assert line.text == (b"" if line.is_too_long else shown.rstrip(b"\r"))
    if lines:
        assert lines[-1].end == len(data)


@given(TEXTS.filter(bool), st.integers(0, 11))
def test_reading_may_go_on_after_any_line(texts: list[bytes], place: int) -> None:
    data = b"\n".join(texts) + b"\n"
    lines = split([data])
    last = lines[place % len(lines)]

    assert split([data[last.end :]], lines=last.number, end=last.end) == lines[last.number :]
