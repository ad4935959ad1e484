"""Where consumers run when a scaler starts them elsewhere than beside itself. `ScalerSection` holds these."""

from __future__ import annotations

from typing import Annotated

import msgspec

from schemas.section import Name, Positive, Seconds, Section


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
    """Pools as containers of one Docker host."""

    # Empty: $DOCKER_HOST, else /var/run/docker.sock.
    host: str = ""
    image: str = "penstock:latest"
    # What the image runs; the pool, the broker's address and the consumer's name come as environment.
    command: list[str] = msgspec.field(default_factory=lambda: ["penstock", "consumer"])
    # For every container, `PENSTOCK__…` settings among them.
    environment: dict[str, str] = {}
    # Empty: Docker's default network. Consumers must reach the broker's address from there.
    network: str = ""
    # `/models:/models:ro` and the like.
    volumes: list[str] = []
    # Ids of the GPUs that consumers may have, as `nvidia-smi -L` counts them; each goes to one consumer at a time.
    # Empty: consumers get none.
    gpus: list[str] = []
    gpus_per_consumer: Positive = 1
    # `--shm-size`: engines with several workers need more than Docker's 64 MiB.
    shm_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    backoff_s_max: Annotated[float, msgspec.Meta(gt=0)] = 15.0

    def __post_init__(self) -> None:
        if self.gpus and len(self.gpus) < self.gpus_per_consumer:
            raise ValueError(f"gpus names {len(self.gpus)}, fewer than gpus_per_consumer ({self.gpus_per_consumer})")
