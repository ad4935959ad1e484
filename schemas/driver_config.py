"""Where consumers run when a scaler starts them elsewhere than beside itself. `ScalerSection` holds these."""

from __future__ import annotations

from typing import Annotated

import msgspec

from schemas.section import Name, Positive, Seconds, Section

# `consumer.health_port` in a container.
_ASK = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"
_IS_READY = ("python", "-c", _ASK)


class KubernetesSection(Section, frozen=True, kw_only=True):
    """Pools as Deployments that exist already; only their size is ours."""

    # Empty: the pod's own service account, else $KUBECONFIG, else ~/.kube/config.
    kubeconfig: str = ""
    # Empty: the file's current one.
    context: str = ""
    # Empty: the service account's, or the context's.
    namespace: str = ""
    # The Deployment of a pool; `{pool}` stands for its name.
    deployment: str = "penstock-consumer-{pool}"
    # Deployments of pools that this pattern does not find.
    deployments: dict[Name, str] = {}
    # The label of consumers' pods whose value is their pool: what is watched.
    label: str = "penstock/pool"
    # A step of an exchange that takes longer (connecting, asking, the answer) makes the API count as away.
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    # A watch is begun anew after so long: a connection may die without a word.
    watch_s: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    # Pauses between tries to watch again grow up to this.
    backoff_s_max: Annotated[float, msgspec.Meta(gt=0)] = 15.0
    # A write that somebody else's came before is tried so often in one `apply`.
    conflicts_max: Positive = 5
    # Somebody else changed the size so often within `drift_window_s`: then it is left to them, and said.
    drifts_max: Positive = 3
    drift_window_s: Seconds = 300.0

    def __post_init__(self) -> None:
        if "{pool}" not in self.deployment and not self.deployments:
            raise ValueError("deployment must contain {pool}, or deployments must name one for each pool")


class DockerSection(Section, frozen=True, kw_only=True):
    """Pools as containers of one Docker host. GPUs are `scaler.gpu_ids`, each for one container or for a few."""

    # Empty: $DOCKER_HOST, else /var/run/docker.sock.
    host: str = ""
    image: str = "penstock:latest"
    # For the image's entrypoint; the pool's arguments follow, its settings come as environment.
    command: list[str] = msgspec.field(default_factory=lambda: ["consumer"])
    # For every container, `PENSTOCK__…` settings among them.
    environment: dict[str, str] = {}
    # Empty: Docker's default network. Consumers must reach the broker's address from there.
    network: str = ""
    # `/models:/data/models` and the like.
    volumes: list[str] = []
    # `--shm-size`: engines with several workers need more than Docker's 64 MiB. 0: those.
    shm_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Run inside a container every `health_interval_s`: whether its consumer is ready. Empty: as soon as it runs.
    health: list[str] = msgspec.field(default_factory=lambda: list(_IS_READY))
    health_interval_s: Annotated[float, msgspec.Meta(ge=0.001)] = 2.0
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    # Containers that have drained are looked for so often, and those that never end.
    tidy_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    backoff_s_max: Annotated[float, msgspec.Meta(gt=0)] = 15.0
