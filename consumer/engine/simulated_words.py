"""The simulated model: which tokens follow a prompt, how many, and how long a prompt is. Pure, the same for ever."""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

# As many bytes of UTF-8 make one token of a prompt, about what real tokenizers need.
BYTES_PER_TOKEN = 4
_DIGEST_BYTES = 64
_WORDS = (  # noqa: SIM905 - as a list it would fill a screen
    "water river gate stream queue turbine dam lake valley mill wheel power light town morning rain snow mountain "
    "spring stone bridge boat fish field harvest wind cloud sky night star moon sun path hill forest bird song story "
    "the a one each every that this its their our old new deep quiet slow clear bright cold warm long wide high low "
    "small great runs flows turns falls rises waits opens closes carries holds fills keeps brings gives takes makes "
    "sends meets follows leaves returns begins ends slowly gently always never often soon again together through over "
    "under beside between before after until while and but or as when where because then so with without from into"
).split()


class Text(Protocol):
    """An answer, known whole from the start and handed out token by token."""

    @property
    def tokens(self) -> int: ...

    def part(self, start: int, end: int) -> str:
        """Tokens `start` to `end`, as text; parts that touch join to the whole."""
        ...


class Words:
    """`tokens` words drawn by `digest`."""

    __slots__ = ("_digest", "tokens")

    def __init__(self, digest: bytes, tokens: int) -> None:
        self._digest = digest
        self.tokens = tokens

    def part(self, start: int, end: int) -> str:
        text = " ".join([self._word(index) for index in range(start, end)])
        return text if start in (0, end) else " " + text

    def _word(self, index: int) -> str:
        # The digest gives 64 words; each further lap is shifted by another of its bytes.
        lap, place = divmod(index, _DIGEST_BYTES)
        return _WORDS[(self._digest[place] + lap * (1 + self._digest[lap % _DIGEST_BYTES])) % len(_WORDS)]


class Pieces:
    """A given text, cut into tokens; `tokens` of them at most."""

    __slots__ = ("_text", "is_whole", "tokens")

    def __init__(self, text: str, tokens_max: int) -> None:
        whole = max(1, -(-len(text) // BYTES_PER_TOKEN))
        self.tokens = min(whole, tokens_max)
        self.is_whole = self.tokens == whole
        self._text = text

    def part(self, start: int, end: int) -> str:
        return self._text[start * BYTES_PER_TOKEN : end * BYTES_PER_TOKEN]


def digest_of(*parts: str | int) -> bytes:
    """The seed of everything that is drawn for a prompt."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=_DIGEST_BYTES).digest()


def tokens_of(text: str) -> int:
    """How many tokens `text` is as a prompt."""
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


def natural_length(digest: bytes, mean: int) -> int:
    """After how many tokens the model would end by itself: exponential around `mean`, at least one."""
    uniform = (int.from_bytes(digest[-8:], "big") + 1) / 2**64
    return max(1, round(-mean * math.log(uniform)))


def embedding_of(text: str, dimensions: int) -> list[float]:
    """A vector of length one."""
    values: list[float] = []
    for block in range(-(-dimensions // _DIGEST_BYTES)):
        values += [byte / 127.5 - 1 for byte in digest_of("embedding", block, text)]
    values = values[:dimensions]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]
