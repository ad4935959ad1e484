"""What others do in place of our admission, in the same shape, so that one door serves all. Pure."""

from __future__ import annotations

from collections import deque

import msgspec

from consumer.admission import Admission
from consumer.bench.workloads import Piece
from consumer.budget import KvBudget
from consumer.door import Line
from consumer.engine.port import Capacity
from consumer.lengths import OutputLengths
from consumer.waiting import Waiting

FIXED = (8, 16, 32, 64, 128, 256)
WATERMARKS = (0.1, 0.3)
# As a consumer that has served such traffic before, and as one that has learned nothing yet.
OURS = "penstock"
OURS_COLD = "penstock_cold"
# As ours, told how long each answer becomes: what no forecast can be better than.
ORACLE = "oracle"
NAMES = (
    OURS,
    OURS_COLD,
    ORACLE,
    "everything",
    *(f"everything_watermark_{watermark:g}" for watermark in WATERMARKS),
    *(f"fixed_{jobs}" for jobs in FIXED),
    "worst_case",
)


class Policy(msgspec.Struct, frozen=True):
    """A line, and who must hear how long answers became."""

    line: Line
    budget: KvBudget | None = None

    def finish(self, job_id: str, tokens: int) -> None:
        if self.budget is not None:
            self.budget.finish(job_id, tokens)


class Bounded:
    """First come, while at most so many jobs are inside and their worst cases fit so many blocks."""

    def __init__(self, *, jobs_max: int = 10**9, blocks_max: int = 10**9) -> None:
        self._jobs_max = jobs_max
        self._blocks_max = blocks_max
        self._line: deque[Waiting] = deque()
        self._inside: dict[str, int] = {}
        self._blocks = 0

    def __len__(self) -> int:
        return len(self._line)

    def push(self, one: Waiting) -> None:
        self._line.append(one)

    def withdraw(self, one: Waiting) -> bool:
        if one not in self._line:
            return False
        self._line.remove(one)
        return True

    def admit(self, capacity: Capacity) -> list[Waiting]:
        admitted: list[Waiting] = []
        while self._line and len(self._inside) < self._jobs_max:
            need = self._line[0].need
            blocks = -(-(need.prompt_tokens + need.output_tokens_max) // capacity.block_size)
            if self._inside and self._blocks + blocks > self._blocks_max:
                break
            one = self._line.popleft()
            self._inside[one.job_id] = blocks
            self._blocks += blocks
            admitted.append(one)
        return admitted

    def leave(self, job_id: str) -> None:
        self._blocks -= self._inside.pop(job_id, 0)


def watermark_of(name: str) -> float:
    """The engine setting that belongs to the policy."""
    return float(name.rpartition("_")[2]) if "watermark" in name else 0.0


def length_seen(name: str, piece: Piece) -> tuple[int, int]:
    """The least and the most tokens of its answer, as far as the policy may know."""
    return (piece.output_tokens, piece.output_tokens) if name == ORACLE else (0, piece.output_tokens_max)


def policy_of(name: str, capacity: Capacity, lengths: OutputLengths | None = None) -> Policy:
    """A fresh one; ours knows of answers what `lengths` does."""
    if name in {OURS, OURS_COLD, ORACLE}:
        budget = KvBudget(capacity, lengths or OutputLengths())
        return Policy(Admission(budget), budget)
    if name.startswith("fixed_"):
        return Policy(Bounded(jobs_max=int(name.removeprefix("fixed_"))))
    if name == "worst_case":
        return Policy(Bounded(blocks_max=capacity.blocks_total))
    return Policy(Bounded())
