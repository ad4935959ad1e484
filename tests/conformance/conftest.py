"""Every engine the port's suite runs against."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.engines import EngineInThread, running_engine

KINDS = ["simulated", pytest.param("vllm", marks=pytest.mark.engine)]


@pytest.fixture(scope="session")
def simulated_engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineInThread]:
    with running_engine("simulated", tmp_path_factory.mktemp("simulated")) as engine:
        yield engine


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Generator[EngineInThread]:
    """A running engine that all tests share. Law 7 is looked at after each: whatever it did, the cache is whole."""
    found: EngineInThread = request.getfixturevalue(f"{request.param}_engine")
    yield found
    assert found.until(found.is_empty, 2), found.engine.capacity()


@pytest.fixture(params=KINDS)
def mortal_engine(request: pytest.FixtureRequest, tmp_path: Path, engine_data_dir: Path) -> Generator[EngineInThread]:
    """An engine of the test's own, to be killed."""
    with running_engine(request.param, engine_data_dir if request.param == "vllm" else tmp_path) as engine:
        yield engine
