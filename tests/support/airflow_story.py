"""What a DAG does, run by an Airflow that is installed elsewhere; see tests/integration/gateway/test_airflow.py.

The connection `openai_default` comes from the environment, as Airflow has it. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.openai.hooks.openai import OpenAIHook
from airflow.providers.openai.operators.openai import (
    OpenAIEmbeddingOperator,
    OpenAIResponseOperator,
    OpenAITriggerBatchOperator,
)

LINES = 20
CHAT = "/v1/chat/completions"


def uploaded(hook: Any) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for number in range(LINES):
            body = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": f"Tell me of {number}"}]}
            file.write(json.dumps({"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}) + "\n")
        file.flush()
        return hook.upload_file(file.name, "batch").id


def deferred(hook: Any) -> tuple[str, str]:
    """The operator as it runs with a triggerer: the batch, and what the trigger said."""
    batch = OpenAITriggerBatchOperator(
        task_id="batch",
        file_id=uploaded(hook),
        endpoint=CHAT,
        deferrable=True,
        poll_interval=0.3,
        timeout=60,
        metadata={"dag": "a"},
        batch_kwargs={"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
    )
    try:
        batch.execute({})
    except TaskDeferred as task:
        trigger = task.trigger

        async def first() -> Any:
            async for event in trigger.run():
                return event.payload
            return None

        event = asyncio.run(first())
        return batch.execute_complete({}, event), event["status"]
    raise AssertionError("it was not deferred")


def main() -> None:
    hook = OpenAIHook()
    waited = OpenAITriggerBatchOperator(
        task_id="waited", file_id=uploaded(hook), endpoint=CHAT, wait_seconds=0.3, timeout=60
    ).execute({})
    batch, status = deferred(hook)
    output = hook.conn.files.content(hook.get_batch(batch).output_file_id).text
    embedding = OpenAIEmbeddingOperator(task_id="embedding", conn_id="openai_default", input_text="water", model="tiny")
    response = OpenAIResponseOperator(
        task_id="response",
        conn_id="openai_default",
        input_text="Tell me of water",
        model="tiny",
        max_output_tokens=5,
        do_xcom_push=False,
    )
    told = {
        "connection": hook.test_connection()[0],
        "waited": hook.get_batch(waited).status,
        "deferred": status,
        "ids": sorted(json.loads(line)["custom_id"] for line in output.splitlines()),
        "embedding": len(embedding.execute({})),
        "response": response.execute({}),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
