from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys

import pytest

from infra.life import on_signals


def test_the_first_signal_asks_and_the_second_skips_the_grace() -> None:
    async def story() -> list[bool]:
        loop = asyncio.get_running_loop()
        stop = on_signals(loop)
        seen: list[bool] = []
        try:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                async with asyncio.timeout(3):
                    await (stop.skip_grace if stop.requested.is_set() else stop.requested).wait()
                seen.append(stop.skip_grace.is_set())
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return seen

    assert asyncio.run(story()) == [False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_that_asked_for_it_dies_with_its_parent() -> None:
    child = (
        "import time; from infra.life import die_with_parent; "
        "die_with_parent(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid, flush=True); import time; time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    watch = os.pidfd_open(pid)

    process.kill()
    process.wait()
    process.stdout.close()

    ended, _, _ = select.select([watch], [], [], 5)
    os.close(watch)
    assert ended, f"process {pid} outlived its parent"
