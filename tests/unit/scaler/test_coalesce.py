"""Who is computed and who waits for him."""

from __future__ import annotations

from scaler.dispatch.backlog import Waiting
from scaler.dispatch.coalesce import Coalescer
from schemas.subjects import Lane


def job(seq: int, *, same: int = 7, tenant: str = "t") -> Waiting:
    return Waiting(
        seq=seq,
        lane=Lane.BULK,
        tenant=tenant,
        job_key=seq,
        prompt_tokens=1,
        output_tokens=1,
        deadline_unix_ms=0,
        not_before_unix_ms=0,
        prefix_key=0,
        same_key=same,
        batch="",
        window="",
        stored_unix_ms=0,
    )


def test_the_first_is_computed_and_the_others_wait_for_it() -> None:
    coalescer = Coalescer("tenant")

    assert [coalescer.stays_behind(job(seq)) for seq in (1, 2, 3)] == [False, True, True]
    coalescer.came(1, "t", "first")
    assert coalescer.ended("t", "first") == [2, 3]
    assert not coalescer.stays_behind(job(4)), "the next one begins anew"


def test_jobs_without_a_key_and_of_other_kinds_wait_for_nobody() -> None:
    coalescer = Coalescer("tenant")
    coalescer.stays_behind(job(1))

    assert not coalescer.stays_behind(job(2, same=0))
    assert not coalescer.stays_behind(job(3, same=8))
    assert not coalescer.stays_behind(job(4, tenant="other"))


def test_across_tenants_only_when_that_is_wanted() -> None:
    wide, off = Coalescer("all"), Coalescer("off")
    wide.stays_behind(job(1))
    off.stays_behind(job(1))

    assert wide.stays_behind(job(2, tenant="other"))
    assert not off.stays_behind(job(2))


def test_the_first_that_is_put_back_and_picked_again_is_still_the_first() -> None:
    coalescer = Coalescer("tenant")
    coalescer.stays_behind(job(1))

    assert not coalescer.stays_behind(job(1))


def test_who_gives_up_frees_those_behind() -> None:
    coalescer = Coalescer("tenant")
    for seq in (1, 2, 3):
        coalescer.stays_behind(job(seq))
    coalescer.came(1, "t", "first")

    assert coalescer.gave_up(1) == [2, 3]
    assert coalescer.ended("t", "first") == []
    assert coalescer.gave_up(1) == []


def test_who_leaves_is_not_answered() -> None:
    coalescer = Coalescer("tenant")
    for seq in (1, 2, 3):
        coalescer.stays_behind(job(seq))
    coalescer.came(1, "t", "first")
    coalescer.leave({2})

    assert coalescer.behind() == [3]
    assert coalescer.ended("t", "first") == [3]


def test_another_job_of_that_name_answers_nobody() -> None:
    coalescer = Coalescer("tenant")
    coalescer.stays_behind(job(1))
    coalescer.stays_behind(job(2))
    coalescer.came(1, "t", "first")

    assert coalescer.ended("other", "first") == []
    assert coalescer.ended("t", "second") == []
