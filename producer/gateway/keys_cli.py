"""`penstock keys create|list|revoke`: who may call the gateways. All of them know within a second."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence

import msgspec

from infra import settings
from infra.broker import Broker
from infra.life import unix_ms
from producer.cli.exits import Exit
from producer.cli.terminal import note, say, say_json
from producer.gateway import buckets
from producer.gateway.administer import administer
from producer.gateway.keys import ID_BYTES, SECRET_BYTES, KeyRecord, decode_record, new_key
from schemas import subjects
from schemas.config import Config
from schemas.errors import JobMalformed


def main(arguments: Sequence[str]) -> int:
    return administer(_parser(), arguments, _act)


async def _act(broker: Broker, options: argparse.Namespace, _: Config) -> int:
    match options.command:
        case "create":
            return await _create(broker, options)
        case "list":
            return await _list(broker, as_json=options.json)
        case _:
            return await _revoke(broker, options)


async def records(broker: Broker) -> list[KeyRecord]:
    """All that were ever made, oldest first."""
    found: list[KeyRecord] = []
    async for _, value in buckets.entries(broker, subjects.KEYS_BUCKET):
        if value:
            found.append(decode_record(value))
    return sorted(found, key=lambda record: record.created_unix_ms)


async def put(broker: Broker, record: KeyRecord) -> None:
    """On the broker's disk when it returns."""
    await broker.store(subjects.bucket_key(subjects.KEYS_BUCKET, record.id), msgspec.json.encode(record))


async def revoke(broker: Broker, key_id: str) -> KeyRecord:
    """
    Raises:
        JobMalformed: there is no such key.
    """
    stream = subjects.bucket_stream(subjects.KEYS_BUCKET)
    found = await broker.last_on(stream, subjects.bucket_key(subjects.KEYS_BUCKET, key_id))
    if found is None or not found.data:
        raise JobMalformed(f"there is no key {key_id!r}: see `penstock keys list`", param="key", code="key_not_found")
    record = decode_record(found.data)
    if not record.revoked_unix_ms:
        record = msgspec.structs.replace(record, revoked_unix_ms=unix_ms())
        await put(broker, record)
    return record


async def _create(broker: Broker, options: argparse.Namespace) -> int:
    now = unix_ms()
    expires = now + round(options.days * 86_400_000) if options.days else 0
    random = secrets.token_bytes(ID_BYTES + SECRET_BYTES)
    key, record = new_key(options.tenant, random=random, now_unix_ms=now, name=options.name, expires_unix_ms=expires)
    await put(broker, record)
    if options.json:
        say_json({"id": record.id, "tenant": record.tenant, "name": record.name, "key": key})
    else:
        say(key)
        note(f"key {record.id} of tenant {record.tenant}; it is shown this once, only its hash is kept")
    return Exit.OK


async def _list(broker: Broker, *, as_json: bool) -> int:
    for record in await records(broker):
        fields = {name: value for name, value in msgspec.structs.asdict(record).items() if name != "digest"}
        if as_json:
            say_json(fields)
        else:
            state = "revoked" if record.revoked_unix_ms else "holds"
            say(f"{record.id}  {record.tenant:<24} {state:<8} {record.name}")
    return Exit.OK


async def _revoke(broker: Broker, options: argparse.Namespace) -> int:
    record = await revoke(broker, options.key)
    if options.json:
        say_json({"id": record.id, "revoked_unix_ms": record.revoked_unix_ms})
    else:
        say(f"key {record.id} of tenant {record.tenant} is revoked")
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock keys", description="API keys of the gateways, kept as hashes.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="one object a line")
    settings.add_config_options(shared)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", parents=[shared], help="make one; it is printed once")
    create.add_argument("--tenant", required=True, help="whose jobs its holder submits and sees")
    create.add_argument("--name", default="", help="a word for people")
    create.add_argument("--days", type=float, default=0, help="it ends by itself (default: never)")
    commands.add_parser("list", parents=[shared], help="all of them, without their secrets")
    ending = commands.add_parser("revoke", parents=[shared], help="end one; known everywhere within a second")
    ending.add_argument("key", metavar="ID", help="the 16 characters after sk-ps-")
    return parser
