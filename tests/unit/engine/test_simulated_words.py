"""The simulated model's tokens."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.simulated_words import Pieces, Words, digest_of, embedding_of, natural_length, tokens_of


@given(st.text(), st.integers(1, 300), st.lists(st.integers(0, 300)))
def test_parts_join_to_the_whole_however_they_are_cut(prompt: str, tokens: int, cuts: list[int]) -> None:
    for text in (Words(digest_of(prompt), tokens), Pieces(prompt or "x", tokens)):
        places = sorted({0, text.tokens, *[min(cut, text.tokens) for cut in cuts]})

        parts = [text.part(start, end) for start, end in pairwise(places)]

        assert "".join(parts) == text.part(0, text.tokens)


@given(st.text(), st.integers(1, 300))
def test_words_are_as_many_as_tokens(prompt: str, tokens: int) -> None:
    assert len(Words(digest_of(prompt), tokens).part(0, tokens).split()) == tokens


def test_the_same_prompt_gives_the_same_words_in_every_process() -> None:
    assert Words(digest_of("What is a penstock?", 0, 0), 5).part(0, 5) == "dam snow wheel high power"


@given(st.text(min_size=1), st.integers(1, 50))
def test_pieces_tell_whether_they_were_cut_short(text: str, tokens_max: int) -> None:
    pieces = Pieces(text, tokens_max)

    assert pieces.is_whole == (pieces.part(0, pieces.tokens) == text)
    assert 1 <= pieces.tokens <= tokens_max


def test_lengths_have_the_mean_they_are_asked_for() -> None:
    lengths = [natural_length(digest_of(str(number)), 64) for number in range(4000)]

    assert 60 < sum(lengths) / len(lengths) < 68
    assert min(lengths) >= 1
    assert max(lengths) > 300


def test_a_prompt_is_about_four_bytes_a_token() -> None:
    assert tokens_of("") == 1
    assert tokens_of("abcd") == 1
    assert tokens_of("abcde") == 2
    assert tokens_of("中国四大名著") == 5


@given(st.text(), st.integers(1, 200))
def test_an_embedding_has_length_one_and_depends_on_the_text(text: str, dimensions: int) -> None:
    vector = embedding_of(text, dimensions)

    assert len(vector) == dimensions
    assert math.isclose(sum(value * value for value in vector), 1.0)
    assert vector == embedding_of(text, dimensions)
    if dimensions > 4:
        assert vector != embedding_of(text + "!", dimensions)
