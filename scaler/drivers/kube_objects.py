"""From Kubernetes' objects to what we want to know of them. Pure."""

# lightkube leaves the types of its dicts open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import datetime as dt
import re
from typing import Any, cast

from lightkube.models.core_v1 import ContainerStatus, PodCondition, PodSpec
from lightkube.models.meta_v1 import LabelSelector
from lightkube.operators import exists, in_, not_exists, not_in
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod as KubePod

from scaler.drivers.kube_answers import Sized
from scaler.drivers.pods import COST_ANNOTATION, Pod
from schemas.config import ConsumerSection

_REVISION = "pod-template-hash"


def sized_of(name: str, found: Deployment) -> Sized:
    spec, metadata, status = found.spec, found.metadata, found.status
    assert spec is not None
    assert metadata is not None
    conditions = (status.conditions if status else None) or []
    failures = [one.message or one.type for one in conditions if one.type == "ReplicaFailure" and one.status == "True"]
    return Sized(
        name=name,
        # An API server fills in what is missing; this is what it would.
        replicas=1 if spec.replicas is None else spec.replicas,
        version=metadata.resourceVersion or "",
        selector=_selector_of(spec.selector),
        hindrance=failures[0] if failures else "",
        changed_by=_sized_by(metadata.managedFields or []),
    )


def pod_of(pod: KubePod) -> Pod:
    metadata, spec, status = pod.metadata, pod.spec, pod.status
    assert metadata is not None
    conditions = {one.type: one for one in (status.conditions if status else None) or []}
    ready = conditions.get("Ready")
    statuses = [
        *((status.containerStatuses if status else None) or []),
        *((status.initContainerStatuses if status else None) or []),
    ]
    return Pod(
        name=metadata.name or "",
        created_unix_ms=_unix_ms(metadata.creationTimestamp),
        revision=labels_of(pod).get(_REVISION, ""),
        phase=(status.phase if status else None) or "Pending",
        is_assigned=bool(spec and spec.nodeName),
        is_ready=_is_true(ready),
        ready_unix_ms=_unix_ms(ready.lastTransitionTime) if ready else 0,
        is_leaving=metadata.deletionTimestamp is not None or _is_true(conditions.get("DisruptionTarget")),
        restarts=sum(one.restartCount for one in statuses),
        trouble=_trouble(statuses, conditions.get("PodScheduled")),
        last_exit=_last_exit(statuses),
        termination_s=30
        if spec is None or spec.terminationGracePeriodSeconds is None
        else spec.terminationGracePeriodSeconds,
        grace_s=_grace_s(spec),
        cost=_int_or_none(_texts(metadata.annotations).get(COST_ANNOTATION)),
    )


def _grace_s(spec: PodSpec | None) -> float:
    """The consumer's own, as its environment or its arguments say; the default where they do not."""
    said: list[str] = []
    for container in (spec.containers if spec else None) or []:
        said += [one.value or "" for one in container.env or [] if one.name == "PENSTOCK__CONSUMER__GRACE_S"]
        words = " ".join([*(container.command or []), *(container.args or [])])
        said += re.findall(r"--consumer\.grace_s[ =](\S+)", words)
    try:
        return float(said[-1])
    except (IndexError, ValueError):
        return ConsumerSection().grace_s


def _trouble(statuses: list[ContainerStatus], scheduled: PodCondition | None) -> str:
    """The reason of the first container that waits, else why no node takes the pod."""
    for one in statuses:
        waiting = one.state.waiting if one.state else None
        if waiting is not None and waiting.reason not in {None, "ContainerCreating", "PodInitializing"}:
            return waiting.reason or ""
        ended = one.state.terminated if one.state else None
        if ended is not None and one.restartCount > 0:
            # Between its death and the platform's word for the pause before it starts again.
            return "CrashLoopBackOff"
    if scheduled is not None and scheduled.status == "False":
        return f"{scheduled.reason}: {scheduled.message}" if scheduled.message else scheduled.reason or ""
    return ""


def _last_exit(statuses: list[ContainerStatus]) -> str:
    for one in statuses:
        ended = one.lastState.terminated if one.lastState else None
        if ended is not None:
            return f"{ended.reason or 'ended'} with exit code {ended.exitCode}"
    return ""


def _sized_by(entries: list[Any]) -> str:
    """Who owns `spec.replicas`; the youngest, where several do."""
    owners = [entry for entry in entries if "f:replicas" in (_texts(entry.fieldsV1).get("f:spec") or {})]
    if not owners:
        return ""
    youngest = max(owners, key=lambda entry: _unix_ms(entry.time))
    return str(youngest.manager or "")


def _selector_of(selector: LabelSelector | None) -> dict[str, Any]:
    """Kubernetes' two ways of selecting as lightkube's one."""
    found = dict(_texts(selector.matchLabels if selector else None))
    for one in (selector.matchExpressions if selector else None) or []:
        values = one.values or []
        match one.operator:
            case "In":
                found[one.key] = in_(values)
            case "NotIn":
                found[one.key] = not_in(values)
            case "DoesNotExist":
                found[one.key] = not_exists()
            case _:
                found[one.key] = exists()
    return found


def labels_of(pod: KubePod) -> dict[str, Any]:
    return _texts(pod.metadata.labels if pod.metadata else None)


def _texts(mapping: Any) -> dict[str, Any]:
    """Lightkube's dicts have no types, and may be missing."""
    return cast("dict[str, Any]", mapping or {})


def _is_true(condition: PodCondition | None) -> bool:
    return condition is not None and condition.status == "True"


def _unix_ms(moment: dt.datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment is not None else 0


def _int_or_none(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
