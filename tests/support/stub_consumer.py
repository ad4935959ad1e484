"""Stands in for a consumer where only its life matters: ready, at work, draining, dead.

It is told what to do by files in a folder.
`wait`: it starts for as long as this file is there. `busy`: so long a drain takes. `crash`: it dies at its start.
"""

import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
stops = []
signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
if (folder / "crash").exists():
    print("the stub was told to crash")
    sys.exit(1)
while (folder / "wait").exists() and not stops:
    time.sleep(0.01)
if not stops:
    print('{"event":"consumer.ready"}', flush=True)
    while not stops:
        time.sleep(0.01)
    while (folder / "busy").exists():
        time.sleep(0.01)
