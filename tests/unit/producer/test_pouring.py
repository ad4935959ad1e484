from __future__ import annotations

from producer.pouring import parts_of
from producer.request import Prepared, Request, prepared
from schemas.config import ClientSection
from schemas.errors import JobMalformed, PenstockError


def job(size: int) -> Prepared:
    request = Request(body={"prompt": "x" * size})
    client = ClientSection(body_bytes_max=10**9)
    return prepared(request, client, now_unix_ms=1, random=b"0123456789")


def test_parts_fit_one_atomic_batch_and_keep_the_order() -> None:
    one = job(1)
    wrong = JobMalformed("no")
    jobs: list[Prepared | PenstockError] = [one] * 1500 + [wrong] + [one] * 700

    parts = list(parts_of(jobs))

    assert [len(part) for part in parts] == [1000, 1000, 201]
    assert [member for part in parts for member in part] == jobs


def test_large_jobs_are_few_to_a_part() -> None:
    assert [len(part) for part in parts_of([job(3_000_000)] * 5)] == [2, 2, 1]
    assert [len(part) for part in parts_of([job(30_000_000)] * 2)] == [1, 1]


def test_the_source_is_read_no_further_than_needed() -> None:
    taken: list[int] = []

    def source() -> object:
        for number in range(10_000):
            taken.append(number)
            yield job(1)

    next(iter(parts_of(source())))  # pyright: ignore[reportArgumentType]

    assert len(taken) == 1001
