"""Turns the events of one job, as they arrive, into what its reader may see. No I/O, no clock.

Frames travel at most once and an attempt may be repeated elsewhere, so events can be missing, doubled, or come again
from the start. What is shown keeps one promise: since the last `Restarted` it is a true prefix of one attempt's text.
A repeat of the same text is swallowed; text after a hole is held back and completed from the stored result.
"""

from __future__ import annotations

import msgspec

from producer.events import Event, Restarted
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.frames import Event as WireEvent
from schemas.result import Result


class _Choice:
    """One choice's text: what the reader has, and how much of it the running attempt has repeated."""

    __slots__ = ("parts", "repeated", "repeated_tokens", "text", "tokens")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.text = ""
        self.tokens = 0
        self.repeated = 0
        self.repeated_tokens = 0

    def shown(self) -> str:
        if self.parts:
            self.text += "".join(self.parts)
            self.parts.clear()
        return self.text


class Replay:
    """The state of one job's stream."""

    __slots__ = ("_choices", "_chunks", "_has_gap", "_is_repeating", "_job", "_seq", "_starts", "attempt")

    def __init__(self, job: str) -> None:
        self.attempt = 0
        self._job = job
        self._seq = 0
        self._starts = 0
        self._has_gap = False
        self._is_repeating = False
        self._choices: dict[int, _Choice] = {}
        self._chunks = 0

    def take(self, event: WireEvent) -> list[Event]:
        """What the reader sees of `event`; `Finished` is for `finish`, once the result is at hand."""
        if isinstance(event, Started):
            return self._started(event)
        if isinstance(event, Finished) or event.seq < self._seq:
            return []
        if event.seq > self._seq:
            self._has_gap = True
        self._seq = event.seq + 1
        if self._has_gap:
            return []
        return self._delta(event) if isinstance(event, Delta) else self._chunk(event)

    def finish(self, result: Result, seq: int | None = None) -> list[Event]:
        """The last events: whatever text the reader still lacks, then the result.

        `seq`: of the `Finished` that brought it; None when it came by another way, and frames before it may be lost.
        """
        events: list[Event] = []
        is_whole = seq == self._seq and not self._has_gap and self._starts == 1
        if result.is_completed and not self._chunks and not is_whole:
            events = self._completed_from(result)
        return [*events, Finished(job=result.id, seq=self._seq, result=result)]

    def _started(self, event: Started) -> list[Event]:
        # Not by the attempt's number alone: a job that was handed back uncharged starts again under the same one.
        self._starts += 1
        self.attempt = event.attempt
        self._seq = event.seq + 1
        self._has_gap = False
        if self._chunks:
            # A chunk may hold logprobs or half a tool call: nothing to compare, so the reader must start again.
            return [self._forget(), event]
        self._is_repeating = bool(self._choices)
        for choice in self._choices.values():
            choice.repeated = choice.repeated_tokens = 0
        return [] if self._choices else [event]

    def _delta(self, event: Delta) -> list[Event]:
        choice = self._choices.get(event.choice)
        if choice is None:
            choice = self._choices[event.choice] = _Choice()
        if self._is_repeating:
            return self._repeated(event, choice)
        choice.parts.append(event.text)
        choice.tokens += event.tokens
        return [event]

    def _repeated(self, event: Delta, choice: _Choice) -> list[Event]:
        """Swallows what the reader has already; at the first difference says so and shows everything again."""
        shown = choice.shown()
        start = choice.repeated
        known = shown[start : start + len(event.text)]
        if not event.text.startswith(known):
            return self._diverged(event)
        choice.repeated += len(event.text)
        choice.repeated_tokens += event.tokens
        fresh = event.text[len(known) :]
        tokens = max(0, choice.repeated_tokens - choice.tokens)
        if fresh:
            choice.parts.append(fresh)
            choice.tokens += tokens
        self._is_repeating = any(other.repeated < len(other.shown()) for other in self._choices.values())
        return [] if not fresh else [msgspec.structs.replace(event, text=fresh, tokens=tokens)]

    def _diverged(self, event: Delta) -> list[Event]:
        repeats = {
            number: (choice.shown()[: choice.repeated], choice.repeated_tokens)
            for number, choice in self._choices.items()
        }
        events: list[Event] = [self._forget()]
        for number, (text, tokens) in repeats.items():
            if text:
                events += self._delta(Delta(job=event.job, seq=event.seq, text=text, tokens=tokens, choice=number))
        return events + self._delta(event)

    def _chunk(self, event: Chunk) -> list[Event]:
        self._chunks += 1
        return [event]

    def _forget(self) -> Restarted:
        self._choices.clear()
        self._chunks = 0
        self._is_repeating = False
        return Restarted(job=self._job, attempt=self.attempt)

    def _completed_from(self, result: Result) -> list[Event]:
        texts = texts_of(bytes(result.body))
        shown = {number: choice.shown() for number, choice in self._choices.items()}
        events: list[Event] = []
        if not all(texts.get(number, "").startswith(text) for number, text in shown.items()):
            events.append(self._forget())
            shown = {}
        tokens = max(0, result.usage.completion_tokens - sum(choice.tokens for choice in self._choices.values()))
        for number, text in sorted(texts.items()):
            rest = text[len(shown.get(number, "")) :]
            if rest:
                events.append(Delta(job=result.id, seq=self._seq, text=rest, tokens=tokens, choice=number))
                tokens = 0
        return events


class _Message(msgspec.Struct):
    content: str | None = None


class _AnswerChoice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice] = []


_answer_decoder = msgspec.json.Decoder(_Answer)


def texts_of(body: bytes) -> dict[int, str]:
    """The text of every choice of an OpenAI response; empty where it has none."""
    try:
        answer = _answer_decoder.decode(body)
    except msgspec.DecodeError:
        return {}
    texts = {
        choice.index: choice.text if choice.message is None else choice.message.content for choice in answer.choices
    }
    return {index: text for index, text in texts.items() if text is not None}
