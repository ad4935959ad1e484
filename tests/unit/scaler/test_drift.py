"""Somebody else sets the size too."""

from __future__ import annotations

from scaler.drivers.drift import Drift


def a_drift() -> Drift:
    return Drift(times_max=3, window_s=300.0)


def test_what_we_asked_for_is_no_drift_also_when_the_answer_was_lost() -> None:
    drift = a_drift()
    assert not drift.saw(1, 0.0)
    drift.asking(4)
    # Not written after all, then written: both are ours.
    assert not drift.saw(1, 1.0)
    assert not drift.saw(4, 2.0)
    assert not drift.saw(4, 3.0)


def test_a_change_by_somebody_else_is_told_once() -> None:
    drift = a_drift()
    drift.asked(2)

    assert drift.saw(6, 1.0)
    assert not drift.saw(6, 2.0)
    assert not drift.is_contested(2.0)


def test_another_scaler_of_penstock_is_nobody_else() -> None:
    drift = a_drift()
    drift.asked(2)

    assert not drift.saw(6, 1.0, is_ours=True)
    assert not drift.saw(6, 2.0)


def test_three_in_a_while_are_left_alone_until_it_has_been_quiet() -> None:
    drift = a_drift()
    for at_s in (0.0, 100.0, 200.0):
        drift.asked(2)
        assert drift.saw(6, at_s)

    assert drift.is_contested(201.0)
    assert drift.is_contested(499.0)
    assert not drift.is_contested(501.0)


def test_three_over_a_long_time_are_three_people() -> None:
    drift = a_drift()
    for at_s in (0.0, 1000.0, 2000.0):
        drift.asked(2)
        drift.saw(6, at_s)

    assert not drift.is_contested(2001.0)
