"""What vLLM loads in each of its processes (an entry point in pyproject.toml), also in those we do not start.

An engine must not outlive a consumer that was killed: it would hold the GPU's memory for ever.
"""

from __future__ import annotations

import os
import signal
import sys

from infra.life import exit_with_parent

# Set by the consumer to its own pid; anybody else's vLLM is left alone.
CONSUMER_PID = "PENSTOCK_CONSUMER_PID"
# Set where a zygote has imported everything before this process began.
FORKED = "PENSTOCK_FORKED"

_registered_in = 0


def register() -> None:
    global _registered_in  # noqa: PLW0603 - vLLM loads plugins more than once
    consumer = os.environ.get(CONSUMER_PID)  # noqa: TID251 - it crosses process starts, as nothing else does
    if not consumer or _registered_in == os.getpid():
        return
    _registered_in = os.getpid()
    if consumer == str(os.getpid()):
        # A fork has the consumer's plugins already and loads none: it would not hear of its parent's end.
        os.register_at_fork(after_in_child=_forked)
    else:
        exit_with_parent()


def _forked() -> None:
    """In whatever is forked from a consumer, or from its engine process."""
    # Else a signal to the engine would be written into the consumer's loop.
    signal.set_wakeup_fd(-1)
    _keep_to_cores()
    exit_with_parent()


def _keep_to_cores() -> None:
    """A new CPU worker learns its cores from variables that OpenMP reads when it is loaded; here it is loaded already.
    Its threads begin later and inherit this.
    """
    cores = os.environ.get("GOMP_CPU_AFFINITY", "").split()  # noqa: TID251 - set by vLLM around a worker's start
    torch = sys.modules.get("torch")
    if torch is None or not cores or not all(core.isdigit() for core in cores):
        return
    os.sched_setaffinity(0, {int(core) for core in cores})
    torch.set_num_threads(len(cores))
