"""kill -9 of gateway, consumer and dispatcher while a batch runs; `penstock chaos batch` is the same with any size."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

pytestmark = pytest.mark.chaos

LINES = int(os.environ.get("PENSTOCK_TEST_LINES", "2000"))
KILLS = int(os.environ.get("PENSTOCK_TEST_KILLS", "6"))
RSS_MOST_MB = 200


def test_every_line_of_a_batch_is_answered_once_whatever_is_killed() -> None:
    seed = random.randrange(10**6)
    code = "import sys; from producer.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["chaos", "batch", "--lines", str(LINES), "--kills", str(KILLS), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    assert sum(report["detail"]["kills"].values()) == KILLS
    assert {name: report["bars"][name]["value"] for name in ("lost", "doubled", "strange")} == {
        "lost": 0,
        "doubled": 0,
        "strange": 0,
    }
    assert report["bars"]["gateway_peak_rss_mb"]["value"] <= RSS_MOST_MB, f"seed {seed}"
    assert not report["detail"]["errors_logged"], f"seed {seed}"
