"""The requests of one round of a bench. Pure: a seed gives the same ones for ever."""

from __future__ import annotations

import random
from typing import Any

import msgspec

_WORDS = ("river", "water", "gate", "turbine", "stream", "queue", "token", "power", "mill", "stone", "light", "road")


class Load(msgspec.Struct, frozen=True):
    """Prompts, and how many tokens each answer has."""

    prompts: list[str]
    output_tokens: list[int]

    def bodies(self) -> list[dict[str, Any]]:
        return [
            {"prompt": prompt, "temperature": 0, "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
            for prompt, tokens in zip(self.prompts, self.output_tokens, strict=True)
        ]


def mixed_load(requests: int, seed: int) -> Load:
    """Prompts of 20 to 200 words, answers of 16 to 256 tokens, different in every round so that no cache helps."""
    rng = random.Random(seed)  # noqa: S311
    prompts = [_prompt(rng, rng.randint(20, 200)) for _ in range(requests)]
    return Load(prompts, [rng.randint(16, 256) for _ in range(requests)])


def even_load(requests: int, seed: int, *, prompt_words: int, output_tokens: int) -> Load:
    """All of one size: whoever is compared has the same work at any time."""
    rng = random.Random(seed)  # noqa: S311
    return Load([_prompt(rng, prompt_words) for _ in range(requests)], [output_tokens] * requests)


def _prompt(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))
