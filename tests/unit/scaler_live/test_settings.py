from __future__ import annotations

import pytest

from scaler.live.settings import guard_settings, observer_settings, policy_settings
from scaler.policies.composed import Composed
from schemas.config import load
from schemas.errors import ConfigError

TOML = """
[scaler.guard]
step_up = 3
[scaler.pools.big]
minimum = 1
maximum = 5
gpus_per_replica = 2
gpu_hours_a_day = 48
idle_s = 90
waits_s = { standard = 120 }
[scaler.pools.big.windows.office]
cron = "0 8 * * 1-5"
tz = "Europe/Berlin"
hours = 10
floor = 2
except_on = ["2026-12-25"]
"""


def test_a_pools_table_reaches_policies_guard_and_observer() -> None:
    cfg = load(TOML, {}, {}).scaler
    pool = cfg.pools["big"]

    policy, guard, observer = policy_settings(pool), guard_settings(cfg.guard, pool), observer_settings("big", pool)

    assert (policy.idle_s, policy.budget.gpu_hours_a_day, policy.budget.gpus_per_replica) == (90, 48, 2)
    assert [(window.name, window.floor, window.except_on) for window in policy.windows] == [
        ("office", 2, ["2026-12-25"])
    ]
    assert (guard.minimum, guard.maximum, guard.step_up) == (1, 5, 3)
    assert (observer.waits_s["standard"], observer.waits_s["bulk"], observer.gpus_per_replica) == (120, 86400, 2)
    assert Composed(policy).settings is policy


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("minimum = 9", "minimum 9 must not be above maximum 5"),
        ("consumers_per_gpu = 2", "consumers_per_gpu needs gpus_per_replica 1"),
        ("waits_s = { slow = 3 }", "there is no lane 'slow'"),
        ("maximun = 3", "did you mean `maximum`"),
    ],
)
def test_a_mistake_in_a_pools_table_is_named(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(
            f"[scaler.pools.big]\nmaximum = 5\ngpus_per_replica = 2\n{line}\n".replace(
                "maximum = 5\nmaximun", "maximun"
            ),
            {},
            {},
        )


def test_a_window_that_cannot_open_is_named() -> None:
    pool = load(TOML.replace("0 8 * * 1-5", "0 25 * * *"), {}, {}).scaler.pools["big"]

    with pytest.raises(ConfigError, match=r"office\.cron"):
        Composed(policy_settings(pool))
