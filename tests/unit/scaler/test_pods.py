"""Pods as replicas, and which of them a smaller Deployment should lose."""

from __future__ import annotations

from typing import Any

from scaler.drivers.pods import Made, Pod, costs_to_set, fleet_of, in_order_of_deletion, pools_changed


def a_pod(name: str, **how: Any) -> Pod:
    running = {"phase": "Running", "is_assigned": True, "is_ready": True, "revision": "r1"}
    return Pod(name=name, **{**running, **how})


def names(pods: list[Pod]) -> list[str]:
    return [pod.name for pod in pods]


def test_a_replica_set_s_order_is_known() -> None:
    pods = [
        a_pod("old", created_unix_ms=1),
        a_pod("cheap", cost=-5),
        a_pod("dear", cost=5),
        a_pod("not-ready", is_ready=False),
        a_pod("pending", phase="Pending", is_ready=False),
        a_pod("unassigned", phase="Pending", is_assigned=False, is_ready=False),
        a_pod("restarted", restarts=3, created_unix_ms=1),
        a_pod("fresh", ready_unix_ms=9, created_unix_ms=9),
    ]

    order = ["unassigned", "pending", "not-ready", "cheap", "fresh", "restarted", "old", "dear"]
    assert names(in_order_of_deletion(pods)) == order


def test_in_a_rollout_the_old_revision_goes_first() -> None:
    old = [a_pod(f"old-{n}", created_unix_ms=n) for n in range(3)]
    new = a_pod("new", revision="r2", is_ready=False, created_unix_ms=9)

    fleet = fleet_of("p", "d", Made(replicas=3), [*old, new], 0)

    assert {one.id: one.phase for one in fleet.replicas} == {
        "old-0": "running",
        "old-1": "running",
        "old-2": "draining",
        "new": "starting",
    }


def test_an_evicted_pod_is_nobody_s_replica() -> None:
    fleet = fleet_of("p", "d", Made(replicas=1), [a_pod("a"), a_pod("evicted", phase="Failed", is_ready=False)], 0)

    assert [one.id for one in fleet.replicas] == ["a"]


def test_what_could_not_be_placed_yet_starts_and_says_why() -> None:
    full = a_pod("a", is_ready=False, phase="Pending", is_assigned=False, trouble="Unschedulable: 0/3 nodes have a GPU")

    (replica,) = fleet_of("p", "d", Made(replicas=1), [full], 0).replicas

    assert (replica.phase, replica.reason) == ("starting", "Unschedulable: 0/3 nodes have a GPU")


def test_only_as_many_are_marked_as_will_go() -> None:
    pods = [a_pod(name) for name in "abcd"]

    costs = costs_to_set(pods, 2, ["c", "a", "d", "b"])

    assert list(costs) == ["c", "a"]
    marked = [a_pod(pod.name, cost=costs.get(pod.name)) for pod in pods]
    assert names(in_order_of_deletion(marked))[:2] == ["c", "a"]


def test_marks_that_stand_already_are_not_written_again() -> None:
    pods = [a_pod(name) for name in "abc"]
    costs = costs_to_set(pods, 1, ["b", "a"])
    marked = [a_pod(pod.name, cost=costs.get(pod.name)) for pod in pods]

    assert costs_to_set(marked, 1, ["b", "a"]) == {}


def test_a_mark_of_an_earlier_time_is_taken_away_and_a_person_s_left() -> None:
    marked = next(iter(costs_to_set([a_pod("a"), a_pod("b")], 1, ["a"]).values()))
    pods = [a_pod("a", cost=marked), a_pod("b"), a_pod("kept", cost=1000), a_pod("unloved", cost=-1)]

    costs = costs_to_set(pods, 3, ["b"])

    assert costs["a"] is None
    assert set(costs) == {"a", "b"}


def test_victims_that_are_gone_or_leaving_are_passed_over() -> None:
    pods = [a_pod("a", is_leaving=True), a_pod("b"), a_pod("c")]

    assert list(costs_to_set(pods, 1, ["gone", "a", "c", "b"])) == ["c"]


def test_a_heartbeat_is_no_change_and_a_crash_is() -> None:
    before = {"a": ("p", a_pod("a")), "b": ("q", a_pod("b"))}
    beats = {**before, "a": ("p", a_pod("a", ready_unix_ms=77))}
    crashed = {**before, "a": ("p", a_pod("a", is_ready=False, restarts=1))}

    assert pools_changed(before, beats) == set()
    assert pools_changed(before, crashed) == {"p"}
    assert pools_changed(before, {"a": before["a"]}) == {"q"}
