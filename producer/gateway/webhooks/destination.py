"""Where an endpoint's URL leads, and whether we may go there: a tenant must not make us call our own network. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from schemas.errors import JobMalformed
from schemas.webhooks_config import network_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL_MAX = 2048
# A host as it stands in DNS; others write theirs in punycode.
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# What `is_global` lets pass: Azure's own, which answers within a machine only; protocol assignments (Oracle's own is
# one), which Pythons differ about; the old relays to IPv6; documentation.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16")
)
# IPv6 addresses that lead to the IPv4 address in their last 32 bits, where such a gateway stands.
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.ip_network("::/96")


class Destination(NamedTuple):
    """A URL in the parts that a request needs."""

    is_tls: bool
    host: str
    port: int
    # Path and query.
    target: str
    # As the Host header says it.
    authority: str


class AddressRefused(JobMalformed):
    """The endpoint's host is, or resolves to, an address that we do not call."""

    code = "address_refused"


def destination_of(url: str, allowed: Sequence[str]) -> Destination:
    """`allowed`: networks (CIDR) that are called whatever they are. A host in plain numbers is checked at once.

    Raises:
        JobMalformed: no URL that can be called; says why.
    """
    parts = _split(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise JobMalformed(f"url {url[:100]!r} must be https://host[:port]/path", param="url")
    if parts.username is not None or parts.password is not None:
        # It would be shown in lists.
        raise JobMalformed("url must not hold a user or password: requests are signed", param="url")
    host = parts.hostname
    literal = _literal(host)
    if literal is None and not _HOST.fullmatch(host):
        raise JobMalformed(f"url: {host[:100]!r} is no host name (others than ASCII: as xn--…)", param="url")
    is_tls = parts.scheme == "https"
    if literal is not None:
        check_address(literal, allowed, is_tls=is_tls)
    elif not is_tls and not allowed:
        raise _plain(host)
    shown = f"[{host}]" if ":" in host else host
    return Destination(
        is_tls=is_tls,
        host=host,
        port=parts.port or (443 if is_tls else 80),
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        authority=shown if parts.port is None else f"{shown}:{parts.port}",
    )


def check_address(address: Address, allowed: Sequence[str], *, is_tls: bool) -> None:
    """
    Raises:
        AddressRefused: it is this machine's, a private network's or a cloud's own, and not in `allowed`; or the way
            there is not encrypted.
    """
    if any(address in network_of(one) for one in allowed):
        return
    if not is_public(address):
        # Not which: the name's owner may be asking what our network looks like.
        raise AddressRefused(
            "url leads to an address that is not public (an operator may allow its network: "
            "gateway.webhooks.allowed_networks)",
            param="url",
        )
    if not is_tls:
        raise _plain(str(address))


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could be meant. Every IPv4 address within an IPv6 one must be public too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _NAT64) or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _split(url: str) -> SplitResult:
    if len(url) > _URL_MAX:
        raise JobMalformed(f"url is {len(url)} characters, the limit is {_URL_MAX}", param="url")
    if not _VISIBLE.fullmatch(url):
        # `urlsplit` drops line breaks, and what it was given would not be what is stored.
        raise JobMalformed("url may hold visible ASCII characters only", param="url")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise JobMalformed(f"url: {error}", param="url") from error
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _plain(host: str) -> AddressRefused:
    return AddressRefused(
        f"url must be https:// for {host[:100]!r}: plain http is for gateway.webhooks.allowed_networks only",
        param="url",
    )
