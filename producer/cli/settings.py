"""The configuration and a client, as a command gets them."""

from __future__ import annotations

from infra import embedded, settings
from producer.cli.main import Invocation
from producer.client import Client
from schemas.config import Config
from schemas.errors import BusUnavailable, ConfigError


def config_of(invocation: Invocation, *, more: list[str] | None = None) -> Config:
    """
    Raises:
        ConfigError: names the key.
    """
    words = [*invocation.overrides, *(more or [])]
    return settings.load_config(invocation.arguments.config, words, invocation.environment)


def broker_url(config: Config, invocation: Invocation) -> str:
    """
    Raises:
        BusUnavailable: none is configured and none runs here.
    """
    try:
        return embedded.discover(config.broker, settings.data_dir(config, invocation.environment))
    except ConfigError as error:
        raise BusUnavailable(error.message) from error


def client_of(invocation: Invocation) -> Client:
    """For the pool and tenant that the arguments name."""
    config = config_of(invocation)
    arguments = invocation.arguments
    return Client(broker_url(config, invocation), pool=arguments.pool, tenant=arguments.tenant, config=config)
