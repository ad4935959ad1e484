from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from producer.tickets import service_tier_of, ticket_of_job
from schemas.backlog import Ticket, header_of, ticket_of
from schemas.job import Job


def ticket(body: object, endpoint: str = "/v1/chat/completions", **more: Any) -> Ticket:
    return ticket_of_job(Job(id="j", body=msgspec.Raw(json.dumps(body).encode()), endpoint=endpoint, **more))


def completion(**body: Any) -> Ticket:
    return ticket(body, "/v1/completions")


def chat(*messages: tuple[str, object], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **more}


def test_a_prompt_is_measured_in_quarters_of_its_characters() -> None:
    assert completion(prompt="x" * 400).prompt_tokens == 100
    assert completion(prompt=["x" * 400, "y" * 40]).prompt_tokens == 110
    assert completion(prompt=list(range(300))).prompt_tokens == 300
    assert completion(prompt=[[1, 2, 3], [4, 5]]).prompt_tokens == 5
    assert ticket({"input": ["x" * 40] * 3}, "/v1/embeddings").prompt_tokens == 30


def test_all_messages_of_a_chat_count_and_pictures_by_number_not_by_bytes() -> None:
    plain = ticket(chat(("system", "x" * 400), ("user", "y" * 400))).prompt_tokens
    picture = {"type": "image_url", "image_url": {"url": "data:" + "A" * 100_000}}
    seen = ticket(chat(("user", [{"type": "text", "text": "y" * 400}, picture]))).prompt_tokens

    assert 200 <= plain <= 220
    assert 100 < seen < 1000


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 50, "max_tokens": 100}, 50),
        ({"max_tokens": 100, "n": 3}, 300),
        ({}, 0),
    ],
)
def test_the_longest_answer_is_what_was_asked_for_times_the_choices(more: dict[str, int], tokens: int) -> None:
    assert ticket(chat(("user", "hello"), **more)).output_tokens_max == tokens


def test_a_completion_that_does_not_say_has_vllms_sixteen_tokens() -> None:
    assert completion(prompt="x").output_tokens_max == 16


def test_chats_with_the_same_instructions_and_tools_share_a_prefix_whatever_the_question() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    first = ticket(chat(("system", "be brief"), ("user", "one"), tools=tools))
    second = ticket(chat(("system", "be brief"), ("user", "two"), tools=tools))

    assert first.prefix_key == second.prefix_key != 0
    assert ticket(chat(("system", "be long"), ("user", "one"), tools=tools)).prefix_key != first.prefix_key
    assert ticket(chat(("system", "be brief"), ("user", "one"))).prefix_key not in (0, first.prefix_key)
    assert ticket(chat(("user", "one"))).prefix_key == 0


def test_completions_share_what_their_long_prompts_begin_with() -> None:
    shared = "the same preamble " * 40

    assert completion(prompt=shared + "a").prefix_key == completion(prompt=shared + "b").prefix_key != 0
    assert completion(prompt="z" + shared).prefix_key != completion(prompt=shared).prefix_key
    assert completion(prompt="short").prefix_key == 0
    assert completion(prompt=[7] * 200).prefix_key == completion(prompt=[7] * 150 + [8]).prefix_key != 0


def test_only_answers_that_must_be_the_same_are_called_the_same() -> None:
    same = ticket({"temperature": 0, "messages": [], "max_tokens": 3})

    assert same.same_key != 0
    assert ticket({"max_tokens": 3, "messages": [], "temperature": 0.0, "stream": True, "user": "u"}).same_key != 0
    assert ticket({"max_tokens": 3, "messages": [], "temperature": 0, "stream": True}).same_key == same.same_key
    assert ticket({"temperature": 0, "messages": [], "max_tokens": 4}).same_key != same.same_key
    assert ticket({"seed": 1, "messages": []}).same_key != 0
    assert ticket({"messages": []}).same_key == 0
    assert ticket({"temperature": 0.5, "messages": []}).same_key == 0


def test_a_job_whose_tokens_are_watched_is_computed_for_its_own_sake() -> None:
    assert ticket({"temperature": 0, "messages": []}, reply_to="penstock.reply.live.x").same_key == 0


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from tests.unit.producer.test_tickets import *\n"
        "t = ticket(chat(('system', 's'), ('user', 'u'), seed=1)); print(t.prefix_key, t.same_key)"
    )
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    mine = ticket(chat(("system", "s"), ("user", "u"), seed=1))

    assert told == {f"{mine.prefix_key} {mine.same_key}\n"}


@pytest.mark.parametrize(
    "body",
    [{"messages": 7}, {"messages": [1]}, {"prompt": {"a": 1}}, {"max_tokens": "many"}, {"n": -5}, {}, {"prompt": []}],
)
def test_a_body_that_makes_no_sense_still_has_a_ticket(body: dict[str, Any]) -> None:
    for endpoint in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        seen = ticket(body, endpoint)

        assert ticket_of(header_of(seen)) == seen


def test_the_service_tier_is_read_from_the_top_of_the_body_only() -> None:
    assert service_tier_of(b'{"service_tier": "flex"}') == "flex"
    assert service_tier_of(b'{"messages": [{"service_tier": "flex"}]}') == ""
    assert service_tier_of(b'{"service_tier": 7}') == ""
    assert service_tier_of(b"{}") == ""
