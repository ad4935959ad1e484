from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scaler.quota import Claim, shared

CLAIMS = st.lists(
    st.builds(
        Claim,
        pool=st.text("abcdef", min_size=1, max_size=3),
        replicas=st.integers(0, 12),
        gpus_per_replica=st.sampled_from([1, 2, 4]),
        minimum=st.integers(0, 3),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
    ),
    max_size=5,
    unique_by=lambda claim: claim.pool,
)


def test_enough_for_all_is_given_as_wanted() -> None:
    assert shared([Claim(pool="a", replicas=3), Claim(pool="b", replicas=2)], 8) == {"a": 3, "b": 2}


def test_too_little_is_shared_evenly_and_what_one_leaves_goes_to_the_other() -> None:
    assert shared([Claim(pool="a", replicas=9), Claim(pool="b", replicas=2)], 8) == {"a": 6, "b": 2}
    assert shared([Claim(pool="a", replicas=9), Claim(pool="b", replicas=9)], 8) == {"a": 4, "b": 4}


def test_weights_count_gpus_not_replicas() -> None:
    claims = [Claim(pool="large", replicas=9, gpus_per_replica=4), Claim(pool="small", replicas=99)]

    assert shared(claims, 16) == {"large": 2, "small": 8}


def test_a_minimum_comes_before_any_wish() -> None:
    claims = [Claim(pool="a", replicas=9), Claim(pool="b", replicas=9, minimum=3, weight=0.01)]

    assert shared(claims, 4) == {"a": 1, "b": 3}


@given(claims=CLAIMS, gpus=st.integers(0, 40))
def test_the_quota_is_kept_and_nothing_is_left_that_somebody_could_use(claims: list[Claim], gpus: int) -> None:
    got = shared(claims, gpus)

    used = sum(got[claim.pool] * claim.gpus_per_replica for claim in claims)
    assert used <= gpus
    for claim in claims:
        assert got[claim.pool] <= claim.replicas
        assert got[claim.pool] == claim.replicas or claim.gpus_per_replica > gpus - used
