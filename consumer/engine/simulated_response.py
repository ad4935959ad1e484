"""The simulated engine's whole answers, in OpenAI's shapes. Pure."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from consumer.engine.port import Answer
from consumer.engine.simulated_request import Plan
from consumer.engine.simulated_words import embedding_of
from schemas.job import Endpoint

_encoder = msgspec.json.Encoder()


def answer_of(plan: Plan, response_id: str, created: int) -> Answer:
    completion_tokens = 0
    if plan.endpoint == Endpoint.EMBEDDINGS:
        prefix, body = "embd", _embeddings(plan)
    else:
        completion_tokens = sum([choice.text.tokens for choice in plan.choices])
        prefix, body = ("chatcmpl", _chat(plan)) if plan.endpoint == Endpoint.CHAT else ("cmpl", _completion(plan))
    usage = {
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": plan.prompt_tokens + completion_tokens,
    }
    whole = {"id": f"{prefix}-{response_id}", "created": created, "model": plan.model, **body, "usage": usage}
    return Answer(body=_encoder.encode(whole), prompt_tokens=plan.prompt_tokens, completion_tokens=completion_tokens)


def _chat(plan: Plan) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text.part(0, choice.text.tokens)},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(plan.choices)
    ]
    return {"object": "chat.completion", "choices": choices}


def _completion(plan: Plan) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "text": choice.text.part(0, choice.text.tokens),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(plan.choices)
    ]
    return {"object": "text_completion", "choices": choices}


def _embeddings(plan: Plan) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for index, text in enumerate(plan.inputs):
        vector = embedding_of(text, plan.dimensions)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if plan.is_base64 else vector})
    return {"object": "list", "data": data}
