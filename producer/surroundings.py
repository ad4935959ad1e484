"""Which configuration and which broker a client gets that was told neither: what the command line would get.

A script that says `Client()` has no main() of ours, so this front door reads the environment for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from infra import embedded, settings
from schemas.config import Config
from schemas.errors import BusUnavailable, ConfigError


def environment() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - see the module docstring


def default_config() -> Config:
    return settings.load_config("", [], environment())


def data_dir(config: Config) -> Path:
    return settings.data_dir(config, environment())


def broker_url(config: Config) -> str:
    """
    Raises:
        BusUnavailable: no broker is configured and none runs; says what to do.
    """
    if config.broker.url:
        return config.broker.url
    try:
        return embedded.discover(config.broker, data_dir(config))
    except ConfigError as error:
        raise BusUnavailable(error.message) from error
