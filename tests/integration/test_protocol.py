"""docs/protocol.md is enough: a program with a NATS client and no penstock code, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

STRANGER = """
import asyncio, json, secrets, sys
import nats

async def main(url):
    nc = await nats.connect(url)
    js = nc.jetstream()
    job, token = secrets.token_hex(16), secrets.token_hex(16)
    frames, done = [], asyncio.get_running_loop().create_future()

    async def on_frame(msg):
        frames.extend(json.loads(msg.data))

    async def on_done(msg):
        done.set_result(json.loads(msg.data))

    await nc.subscribe(f"penstock.reply.live.{token}", cb=on_frame)
    await nc.subscribe(f"penstock.done.default.stranger.{job}", cb=on_done)
    await nc.flush()
    payload = {
        "id": job,
        "body": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20},
        "reply_to": f"penstock.reply.live.{token}",
    }
    headers = {"Nats-Msg-Id": job, "Penstock-Job": job, "Penstock-Version": "1"}
    ack = await js.publish("penstock.ready.default.standard.stranger", json.dumps(payload).encode(), headers=headers)
    result = await asyncio.wait_for(done, 20)
    while not frames or frames[-1]["type"] != "finished":
        await asyncio.sleep(0.01)
    stored = await js.get_last_msg("PENSTOCK_RESULTS", f"penstock.results.default.stranger.{job}")
    print(json.dumps({"frames": frames, "result": result, "stored": json.loads(stored.data)}))
    assert not any(name.split(".")[0] in {"schemas", "producer", "penstock"} for name in sys.modules)

asyncio.run(main(sys.argv[1]))
"""


def test_a_plain_nats_client_submits_a_job_and_reads_tokens_and_result(
    shared: tuple[str, Path], tmp_path: Path
) -> None:
    url, _ = shared
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)

    ran = subprocess.run(
        [sys.executable, "-P", str(script), url], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )

    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    text = "".join(event["text"] for event in seen["frames"] if event["type"] == "delta")
    assert [event["seq"] for event in seen["frames"]] == list(range(len(seen["frames"])))
    assert seen["frames"][0]["type"] == "started"
    assert seen["result"] == seen["stored"]
    assert seen["result"]["status"] == "completed"
    assert seen["result"]["body"]["choices"][0]["message"]["content"] == text
