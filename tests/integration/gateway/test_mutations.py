"""A thousand bodies that are almost right: each gets an answer in time, and the gateway is never at fault."""

from __future__ import annotations

import asyncio
import copy
import json
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
]
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
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    path, seed = draw(st.sampled_from(SEEDS))
    body = json.loads(json.dumps(seed))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, body)
    data = json.dumps(body).encode()
    match draw(st.integers(0, 9)):
        case 0:
            return path, data[: draw(st.integers(0, len(data)))]
        case 1:
            place = draw(st.integers(0, len(data) - 1))
            return path, data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place + 1 :]
        case _:
            return path, data


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


def check(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (path, body, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        error = json.loads(answer.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n")


def test_a_thousand_mutated_bodies_get_an_answer_and_never_the_gateways_own_fault(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
        ):
            with httpx.Client(base_url=gateway.url, timeout=15) as http:

                @settings(max_examples=1000, suppress_health_check=list(HealthCheck), database=None)
                @given(mutated())
                def every(case: tuple[str, bytes]) -> None:
                    check(http, *case)

                # In a thread, so that what the processes say is read meanwhile.
                await asyncio.to_thread(every)
            assert "request.crashed" not in gateway.log

    asyncio.run(story())
