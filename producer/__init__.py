"""The side that puts jobs in and takes results out: client, batch files, command line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_BESIDE = Path(__file__).resolve().parent.parent / "schemas"


def _check_schemas() -> None:
    """A user's own top-level `schemas` would shadow ours and fail far from here, so it is named now."""
    spec = find_spec("schemas")
    found = None if spec is None else spec.origin
    if found is None or Path(found).resolve().parent != _BESIDE:
        raise ImportError(
            f"penstock needs the package `schemas` shipped beside it in {_BESIDE}, but "
            f"{found or 'something without a file'} shadows it: rename that one or take its folder off sys.path"
        )


_check_schemas()
