from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import penstock


def test_everything_promised_is_there() -> None:
    assert sorted(penstock.__all__) == list(penstock.__all__)
    assert all(hasattr(penstock, name) for name in penstock.__all__)


def test_a_users_own_schemas_is_named_as_the_culprit(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text("")

    done = subprocess.run(
        [sys.executable, "-c", "import penstock"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: penstock needs the package `schemas`")
    assert str(tmp_path / "schemas.py") in last
