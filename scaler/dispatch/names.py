"""Texts that many jobs share, by number. No I/O."""

from __future__ import annotations

from typing import cast

from scaler.dispatch.columns import Numbers


class Names:
    """Number 0 is the empty text."""

    __slots__ = ("_names", "_numbers")

    def __init__(self) -> None:
        self._names = [""]
        self._numbers = {"": 0}

    def __len__(self) -> int:
        return len(self._names)

    def number_of(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def known(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name_of(self, number: int) -> str:
        return self._names[number]

    def keep(self, used: Numbers) -> None:
        """Only these numbers, which are in order and begin with 0; each becomes its place among them."""
        self._names = [self._names[number] for number in cast("list[int]", used.tolist())]
        self._numbers = {name: number for number, name in enumerate(self._names)}
