"""Bodies that are almost right: each gets an answer in time, and the gateway is never at fault.

A thousand of them; PENSTOCK_MUTATIONS=10000 asks for more.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

SEEDS: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
            "n": 1,
            "temperature": 0.5,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "service_tier": "flex",
            "penstock": {"lane": "bulk", "deadline": 30},
        },
    ),
    ("/v1/completions", {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 3, "n": 2, "stream": False, "seed": 1}),
    ("/v1/embeddings", {"model": "tiny", "input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 4}),
    ("/v1/jobs", {"body": {"prompt": "x", "max_tokens": 2}, "endpoint": "/v1/completions", "custom_id": "a"}),
    ("/v1/jobs", {"jobs": [{"body": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}}]}),
    (
        "/v1/batches",
        {
            "input_file_id": "file-0",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        },
    ),
    (
        "/v1/responses",
        {
            "model": "tiny",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            "background": True,
            "stream": True,
            "max_output_tokens": 3,
            "instructions": "x",
            "text": {"format": {"type": "text"}},
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "background_options": {"completion_window": "soonest"},
            "metadata": {"a": "b"},
        },
    ),
    ("/v1/webhook_endpoints", {"url": "https://e.example/", "events": ["batch.completed"], "name": "n"}),
]
# A file's: the parts of a form, each its headers and its content.
FORM: list[tuple[bytes, bytes]] = [
    (b'content-disposition: form-data; name="purpose"', b"batch"),
    (b'content-disposition: form-data; name="expires_after[anchor]"', b"created_at"),
    (b'content-disposition: form-data; name="expires_after[seconds]"', b"3600"),
    (
        b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\ncontent-type: application/jsonl',
        b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}\n',
    ),
]
JSON = "application/json"
MUTATIONS = int(os.environ.get("PENSTOCK_MUTATIONS", "1000"))
STRANGE = (
    st.none()
    | st.booleans()
    | st.sampled_from(
        [0, -1, 2**31, 2**63, 2**70, 1e308, 0.5, "", "x", "\ud800", [], {}, [[]], [None], {"a": {}}, "\u0000", "💧" * 9]
    )
    | st.text(max_size=12)
    | st.integers()
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Path, content type and body."""
    place = draw(st.integers(0, len(SEEDS)))
    if place == len(SEEDS):
        return draw(mutated_form())
    path, seed = SEEDS[place]
    body = json.loads(json.dumps(seed))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, body)
    return path, JSON, _spoiled(draw, json.dumps(body).encode())


@st.composite
def mutated_form(draw: st.DrawFn) -> tuple[str, str, bytes]:
    parts = list(FORM)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(parts) - 1))
        head, content = parts[place]
        match draw(st.integers(0, 4)):
            case 0 if len(parts) > 1:
                del parts[place]
            case 1:
                parts.insert(draw(st.integers(0, len(parts))), parts[place])
            case 2:
                parts[place] = (_spoiled(draw, head), content)
            case 3:
                parts[place] = (draw(st.sampled_from([part[0] for part in FORM])), content)
            case _:
                parts[place] = (head, draw(st.binary(max_size=40)))
    body = b"".join(b"--x\r\n%s\r\n\r\n%s\r\n" % part for part in parts) + b"--x--\r\n"
    kinds = ["multipart/form-data; boundary=x"] * 5 + ["multipart/form-data", 'multipart/form-data; boundary="', JSON]
    return "/v1/files", draw(st.sampled_from(kinds)), _spoiled(draw, body)


def _spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then cut off, or with a few bytes of something else."""
    match draw(st.integers(0, 9)):
        case 0:
            return data[: draw(st.integers(0, len(data)))]
        case 1:
            place = draw(st.integers(0, len(data) - 1))
            return data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place + 1 :]
        case _:
            return data


def _mutate(draw: st.DrawFn, node: Any) -> None:
    """Changes, drops or adds one thing somewhere within `node`."""
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not places:
            return
        place = draw(st.sampled_from(places))
        if isinstance(node[place], (dict, list)) and node[place] and draw(st.booleans()):
            node = node[place]
            continue
        match draw(st.integers(0, 3)):
            case 0:
                del node[place]
            case 1 if isinstance(node, dict):
                node[draw(st.text(max_size=6))] = copy.deepcopy(draw(STRANGE))
            case _:
                # A copy: the next mutation may be inside it.
                node[place] = copy.deepcopy(draw(STRANGE))
        return


def check(http: httpx.Client, path: str, kind: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"content-type": kind})
    assert answer.status_code < 500, (path, body, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        error = json.loads(answer.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
    elif answer.headers["content-type"].startswith("text/event-stream") and path != "/v1/responses":
        assert answer.text.endswith("data: [DONE]\n\n")


def test_every_mutated_body_gets_an_answer_and_never_the_gateways_own_fault(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
        ):
            with httpx.Client(base_url=gateway.url, timeout=15) as http:

                @settings(max_examples=MUTATIONS, suppress_health_check=list(HealthCheck), database=None)
                @given(mutated())
                def every(case: tuple[str, str, bytes]) -> None:
                    check(http, *case)

                # In a thread, so that what the processes say is read meanwhile.
                await asyncio.to_thread(every)
            assert "request.crashed" not in gateway.log

    asyncio.run(story())
