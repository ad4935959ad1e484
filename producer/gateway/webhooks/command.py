"""`penstock webhooks create|list|rotate|revoke`: whom to tell of a tenant's batches and responses."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence

from infra import settings
from infra.broker import Broker
from infra.life import unix_ms
from producer.cli.exits import Exit
from producer.cli.terminal import note, say, say_json
from producer.gateway.administer import administer
from producer.gateway.webhooks import store
from producer.gateway.webhooks.destination import destination_of
from producer.gateway.webhooks.endpoint import (
    ID_BYTES,
    SECRET_BYTES,
    EndpointRecord,
    new_endpoint,
    rotated,
    view_of,
)
from schemas.config import Config
from schemas.errors import JobMalformed
from schemas.webhooks_config import WebhooksSection


def main(arguments: Sequence[str]) -> int:
    return administer(_parser(), arguments, _act)


async def _act(broker: Broker, options: argparse.Namespace, cfg: Config) -> int:
    match options.command:
        case "create":
            return await _create(broker, options, cfg.gateway.webhooks)
        case "list":
            return await _list(broker, options)
        case "rotate":
            return await _rotate(broker, options, cfg.gateway.webhooks)
        case _:
            return await _revoke(broker, options)


async def _create(broker: Broker, options: argparse.Namespace, cfg: WebhooksSection) -> int:
    # Which networks are allowed is the gateways' to say; what is no URL anywhere is refused here.
    destination_of(options.url, cfg.allowed_networks or ["0.0.0.0/0", "::/0"])
    random = secrets.token_bytes(ID_BYTES + SECRET_BYTES)
    record = new_endpoint(
        options.tenant, options.url, random=random, now_unix_ms=unix_ms(), events=options.event, name=options.name
    )
    await store.put(broker, record)
    _say_secret(record, as_json=options.json)
    return Exit.OK


async def _list(broker: Broker, options: argparse.Namespace) -> int:
    found = await (store.of_tenant(broker, options.tenant) if options.tenant else store.everything(broker))
    for record in found:
        if options.json:
            say_json({"tenant": record.tenant, **_shown(record)})
        else:
            state = "disabled" if record.disabled_unix_ms else "enabled"
            say(f"{record.id}  {record.tenant:<24} {state:<9} {record.url}  {' '.join(record.events) or 'all'}")
    return Exit.OK


async def _rotate(broker: Broker, options: argparse.Namespace, cfg: WebhooksSection) -> int:
    record = await _found(broker, options.endpoint)
    random, now, overlap_ms = secrets.token_bytes(SECRET_BYTES), unix_ms(), round(cfg.rotation_s * 1000)
    record = await store.change(
        broker,
        record.tenant,
        record.id,
        lambda now_stored: rotated(now_stored, random=random, now_unix_ms=now, overlap_ms=overlap_ms),
    )
    _say_secret(record, as_json=options.json)
    return Exit.OK


async def _revoke(broker: Broker, options: argparse.Namespace) -> int:
    record = await _found(broker, options.endpoint)
    await store.delete(broker, record.tenant, record.id)
    if options.json:
        say_json({"id": record.id, "deleted": True})
    else:
        say(f"endpoint {record.id} of tenant {record.tenant} is told nothing more")
    return Exit.OK


async def _found(broker: Broker, endpoint_id: str) -> EndpointRecord:
    for record in await store.everything(broker):
        if record.id == endpoint_id:
            return record
    raise JobMalformed(
        f"there is no endpoint {endpoint_id!r}: see `penstock webhooks list`",
        param="endpoint",
        code="endpoint_not_found",
    )


def _say_secret(record: EndpointRecord, *, as_json: bool) -> None:
    if as_json:
        say_json({"tenant": record.tenant, **_shown(record), "secret": record.secrets[0].value})
    else:
        say(record.secrets[0].value)
        note(f"secret of endpoint {record.id} of tenant {record.tenant}; it is shown this once")


def _shown(record: EndpointRecord) -> dict[str, object]:
    view = view_of(record)
    return {name: getattr(view, name) for name in view.__struct_fields__ if name not in {"object", "secret"}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock webhooks",
        description="Endpoints that are told, by signed requests, how a tenant's batches and responses ended.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="one object a line")
    settings.add_config_options(shared)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", parents=[shared], help="make one; its secret is printed once")
    create.add_argument("--tenant", required=True, help="whose events it is told")
    create.add_argument("--url", required=True, help="https://host/path that takes the POSTs")
    create.add_argument("--event", action="append", default=[], help="batch.completed, …; again for more (all)")
    create.add_argument("--name", default="", help="a word for people")
    listing = commands.add_parser("list", parents=[shared], help="all of them, without their secrets")
    listing.add_argument("--tenant", default="", help="only this one's")
    turning = commands.add_parser(
        "rotate", parents=[shared], help="a new secret; the old one signs beside it for a day"
    )
    turning.add_argument("endpoint", metavar="ID")
    ending = commands.add_parser("revoke", parents=[shared], help="end one, and what waits for it")
    ending.add_argument("endpoint", metavar="ID")
    return parser
