from __future__ import annotations

import pytest

from producer.gateway.directory import Capacity, Directory, Presence
from schemas.dispatch import Amount, Snapshot
from schemas.errors import JobMalformed, UnknownModel, UnknownPool
from schemas.subjects import Lane


def directory(**fixed: str) -> Directory:
    return Directory(fixed, default_pool="default")


def seen(ours: Directory, pool: str, *models: str, now_s: float = 0, running: int = 0, name: str = "c") -> None:
    capacity = Capacity(context_tokens_max=100, running=running)
    ours.note(f"{pool}.{name}", Presence(name, pool, list(models), 5000, False, capacity), now_s)


def test_a_model_goes_where_a_live_consumer_serves_it() -> None:
    ours = directory()
    seen(ours, "a", "x")
    seen(ours, "b", "y")

    assert ours.route("y", "", 1).pool == "b"
    assert [(model.id, model.created, model.max_model_len) for model in ours.models(1)] == [
        ("x", 5, 100),
        ("y", 5, 100),
    ]


def test_a_model_nobody_serves_is_unknown_and_the_known_ones_are_named() -> None:
    ours = directory()
    seen(ours, "a", "x")

    with pytest.raises(UnknownModel, match="there are: x"):
        ours.route("z", "", 1)
    with pytest.raises(UnknownModel, match="it serves: x"):
        ours.route("z", "a", 1)
    with pytest.raises(UnknownPool, match="there are: a"):
        ours.route("x", "b", 1)


def test_of_several_pools_the_one_with_less_to_do_is_taken_and_never_one_that_is_empty() -> None:
    ours = directory()
    seen(ours, "a", "x", running=5)
    seen(ours, "b", "x", running=1)
    seen(ours, "c", "x")
    ours.forget("c.c")

    assert ours.route("x", "", 1).pool == "b"
    ours.note_snapshot(
        Snapshot(pool="b", dispatcher="d", unix_ms=0, lanes={"standard": Amount(jobs=90)}, jobs_per_s=1), 1
    )
    assert ours.route("x", "", 1).pool == "a"


def test_without_a_model_the_default_pool_is_meant_or_the_only_one() -> None:
    ours = directory()
    seen(ours, "only", "x")
    assert ours.route(None, "", 1).model == "x"

    seen(ours, "other", "y")
    with pytest.raises(JobMalformed, match="say which model: x, y"):
        ours.route(None, "", 1)

    seen(ours, "default", "z")
    assert ours.route(None, "", 1).pool == "default"


def test_a_pool_whose_consumers_are_gone_is_still_known_and_says_for_how_long() -> None:
    ours = directory()
    seen(ours, "a", "x", now_s=10)

    assert ours.gone_s("a", 12) == 0
    assert ours.gone_s("a", 60) == 50
    assert ours.route("x", "", 60).pool == "a"
    assert ours.models(60) == []


def test_a_fixed_model_is_known_before_anybody_serves_it() -> None:
    ours = directory(x="later")

    assert ours.route("x", "", 0).pool == "later"
    assert [model.id for model in ours.models(0)] == ["x"]


def test_what_waits_ahead_at_the_measured_rate_is_the_wait() -> None:
    ours = directory()
    lanes = {
        "interactive": Amount(jobs=1, prompt_tokens=10, output_tokens=100),
        "standard": Amount(jobs=1, prompt_tokens=10, output_tokens=100),
        "bulk": Amount(jobs=9, prompt_tokens=10, output_tokens=9000),
    }
    view = Snapshot(pool="a", dispatcher="d", unix_ms=0, lanes=lanes, decode_tokens_per_s=10)
    ours.note_snapshot(view, 0)

    assert [ours.wait_s("a", lane, 1) for lane in Lane] == [10, 20, 920]
    assert ours.wait_s("a", Lane.BULK, 60) == 0
