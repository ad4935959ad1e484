"""`[gateway.webhooks]`: how tenants' own servers are told of events."""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import Annotated

import msgspec

from schemas.section import Positive, Seconds, Section

# Standard Webhooks' own, after the first try: three days in all, less than events are kept.
RETRIES_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)


class WebhooksSection(Section, frozen=True, kw_only=True):
    enabled: bool = True
    # Of one tenant. All tenants together should have no more than about a thousand: each is a durable of one stream.
    endpoints_max: Positive = 16
    # Deliveries at once by this gateway, and to one endpoint.
    concurrency: Positive = 128
    per_endpoint: Positive = 4
    # From the look-up of the name to the status of the answer.
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 15.0
    # The pause after each failed try; one more failure, and the event is given up.
    retries_s: list[Seconds] = msgspec.field(default_factory=lambda: list(RETRIES_S))
    # How long a rotated secret signs beside the new one.
    rotation_s: Seconds = 24 * 3600.0
    # Networks (10.1.0.0/16) that endpoints may be in though they are not public, and may be called without TLS.
    allowed_networks: list[str] = []
    # PEM file of a private authority, beside none of the public ones. Empty: the system's.
    ca_file: str = ""

    def __post_init__(self) -> None:
        for text in self.allowed_networks:
            network_of(text)


@cache
def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """
    Raises:
        ValueError: it is none; says so.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"allowed_networks: {error}; write 10.1.0.0/16") from error
