"""Pods as a scaler sees them: which count, which a smaller Deployment would lose, and how to have it lose others. Pure.

A ReplicaSet that must shrink chooses by itself. Before we ask it to, the victims' pods get the annotation by which it
chooses; so the pod that it deletes is the one that is sent SIGTERM and drains, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from scaler.drivers.port import Fleet, Replica

COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
# The first victim's cost. So far below any person's that those of ours are known by it; an int32, as Kubernetes wants.
_CHEAPEST = -2_000_000_000
_OURS_BELOW = -1_000_000_000

_FAILING = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of a pod."""

    name: str
    created_unix_ms: int = 0
    # The revision of the Deployment's template that it was made from.
    revision: str = ""
    phase: str = "Pending"
    is_assigned: bool = False
    is_ready: bool = False
    ready_unix_ms: int = 0
    # Being deleted: by the ReplicaSet, a person, a node's drain or a spot eviction; or told that it soon will be.
    is_leaving: bool = False
    restarts: int = 0
    # Why it does not run: a waiting container's reason, else why no node takes it.
    trouble: str = ""
    # What it said when it died last.
    last_exit: str = ""
    # What Kubernetes leaves it to end, and what its consumer takes.
    termination_s: int = 30
    grace_s: float = 0.0
    cost: int | None = None

    @property
    def is_active(self) -> bool:
        """A ReplicaSet replaces those that ended or were evicted; they are nobody's replica any more."""
        return self.phase not in {"Failed", "Succeeded"}

    @property
    def is_failing(self) -> bool:
        return not self.is_ready and self.trouble in _FAILING


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A Deployment's own words: `replicas` it shall have, and why it cannot make them (a quota, mostly)."""

    replicas: int
    hindrance: str = ""
    asked_unix_ms: int = 0


def fleet_of(pool: str, deployment: str, made: Made, pods: Sequence[Pod], unix_ms: int) -> Fleet:
    """The pool's replicas: as many that stay as the Deployment shall have, whether its controller has acted or not."""
    active = [pod for pod in pods if pod.is_active]
    staying = in_order_of_deletion([pod for pod in active if not pod.is_leaving])
    # Those it has yet to delete drain in a moment.
    surplus = {pod.name for pod in staying[: max(0, len(staying) - made.replicas)]}
    replicas = [_replica(pod, is_draining=pod.is_leaving or pod.name in surplus) for pod in active]
    # And those it has yet to make start.
    for number in range(made.replicas - len(staying)):
        unmade = Replica(
            id=f"{deployment}/unmade-{number}",
            phase="failing" if made.hindrance else "starting",
            reason=made.hindrance,
            asked_unix_ms=made.asked_unix_ms,
        )
        replicas.append(unmade)
    return Fleet(pool=pool, unix_ms=unix_ms, replicas=replicas)


def _replica(pod: Pod, *, is_draining: bool) -> Replica:
    if is_draining:
        phase = "draining"
    elif pod.is_failing:
        phase = "failing"
    else:
        phase = "running" if pod.is_ready else "starting"
    reason = "" if pod.is_ready else ", ".join(part for part in (pod.trouble, pod.last_exit) if part)
    return Replica(
        id=pod.name,
        consumer=pod.name,
        phase=phase,
        asked_unix_ms=pod.created_unix_ms,
        restarts=pod.restarts,
        reason=reason,
    )


def in_order_of_deletion(pods: Sequence[Pod]) -> list[Pod]:
    """As a ReplicaSet controller deletes them; where a new revision is rolled out, the old one's go first.

    Left out is its rule about pods that share a node, which comes after the cost and so never concerns our victims.
    """
    newest = max((pod.created_unix_ms, pod.revision) for pod in pods)[1] if pods else ""
    return sorted(
        pods,
        key=lambda pod: (
            pod.revision == newest,
            pod.is_assigned,
            ("Pending", "Unknown", "Running").index(pod.phase) if pod.phase in {"Pending", "Unknown"} else 2,
            pod.is_ready,
            pod.cost or 0,
            -pod.ready_unix_ms,
            -pod.restarts,
            -pod.created_unix_ms,
            pod.name,
        ),
    )


def costs_to_set(pods: Sequence[Pod], replicas: int, victims: Sequence[str]) -> dict[str, int | None]:
    """Costs to annotate before the Deployment shrinks to `replicas`; None: take ours away.

    Pods that do not run go before any other without our help. A victim of an earlier time, which was spared then and
    may be the busiest now, loses its mark.
    """
    staying = [pod for pod in pods if pod.is_active and not pod.is_leaving]
    names = {pod.name for pod in staying}
    chosen = [name for name in dict.fromkeys(victims) if name in names][: max(0, len(staying) - replicas)]
    wanted: dict[str, int | None] = {name: _CHEAPEST + place for place, name in enumerate(chosen)}
    for pod in staying:
        if pod.name not in wanted and pod.cost is not None and pod.cost < _OURS_BELOW:
            wanted[pod.name] = None
    now = {pod.name: pod.cost for pod in staying}
    return {name: cost for name, cost in wanted.items() if now[name] != cost}


def pools_changed(before: Mapping[str, tuple[str, Pod]], after: Mapping[str, tuple[str, Pod]]) -> set[str]:
    """Pools with a pod that came, went, or fares otherwise. Pods by name, each with its pool."""
    return {
        (after.get(name) or before[name])[0]
        for name in before.keys() | after.keys()
        if _how(before.get(name)) != _how(after.get(name))
    }


def _how(found: tuple[str, Pod] | None) -> tuple[object, ...]:
    if found is None:
        return ()
    pod = found[1]
    return (pod.is_active, pod.is_ready, pod.is_leaving, pod.restarts, pod.trouble)
