"""The grammar of the command line. Nothing here imports more than argparse, so that `--help` is instant."""

from __future__ import annotations

import argparse

from producer.cli.exits import MEANINGS

_EXITS = "exit codes:\n" + "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in MEANINGS.items())

_EPILOG = f"""\
every setting of the configuration can be given as --section.key VALUE (--broker.url nats://host:4222,
--engine.tensor_parallel_size 4), as PENSTOCK__SECTION__KEY, or in penstock.toml; `penstock config` shows them.

{_EXITS}
"""


def parser(version: str) -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="penstock",
        description="Batch inference for LLMs through a queue: NATS JetStream in front, vLLM behind.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"penstock {version}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _up(_command(commands, "up", "start a broker, a consumer, a dispatcher and a gateway here, until Ctrl-C"))
    _submit(_command(commands, "submit", "put one request in; prints its job id"))
    _stream(_command(commands, "stream", "print an answer token by token as it is made"))
    _result(_command(commands, "result", "print the stored result of a job"))
    _cancel(_command(commands, "cancel", "end jobs, wherever they are"))
    _jobs(_command(commands, "jobs", "list running, queued and lately finished jobs"))
    _pause(_command(commands, "pause", "keep what waits from being served: a tenant, a batch, or the pool"))
    _pause(_command(commands, "resume", "serve again what was paused"))
    _tenants(_command(commands, "tenants", "show what waits by tenant, and change their shares"))
    _run_batch(_command(commands, "run-batch", "run a file of requests (OpenAI batch format)"))
    _scale(_command(commands, "scale", "ask for a number of consumers by hand, for a while or for good"))
    _explain(_command(commands, "explain", "say why a pool has as many consumers as it has"))
    _command(commands, "config", "print the effective configuration, secrets masked")
    _passed_on(commands, "consumer", "serve jobs with an engine: `python -m consumer`")
    _passed_on(commands, "dispatcher", "order what waits: `python -m scaler dispatcher`")
    _passed_on(commands, "scaler", "start and stop consumers as they are needed: `python -m scaler scaler`")
    _passed_on(commands, "gateway", "answer OpenAI clients over HTTP: `python -m producer.gateway`")
    _passed_on(commands, "keys", "create, list and revoke the keys of gateways")
    _passed_on(commands, "webhooks", "tell servers how batches and responses ended: create, list, rotate, revoke")
    _passed_on(commands, "simulate", "replay a trace through scaling policies: `python -m scaler.simulate`")
    _passed_on(commands, "plan", "how many consumers a load needs, and what they cost")
    _passed_on(commands, "schedule", "what a pool's windows will do: `penstock schedule test`")
    _passed_on(commands, "bench", "measure: `penstock bench` lists what")
    _passed_on(commands, "chaos", "kill while it works, then count: `penstock chaos` lists what")
    return root


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    help_text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--config", metavar="FILE", default="", help="configuration (default: ./penstock.toml)")
    command.add_argument("--json", action="store_true", help="print JSON for programs")
    return command


def _passed_on(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    help_text: str,
) -> None:
    """A command whose arguments another program reads; `main` hands them over before argparse runs."""
    commands.add_parser(name, help=help_text, add_help=False)


def _address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pool", metavar="NAME", help="which consumers (default: client.pool)")
    command.add_argument("--tenant", metavar="NAME", help="on whose behalf (default: client.tenant)")


def _request(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="?", metavar="TEXT", help="the prompt")
    command.add_argument("--body", metavar="FILE", help="the whole request as JSON; - reads standard input")
    command.add_argument(
        "--endpoint", default="chat", metavar="NAME", help="chat, completions, embeddings, or a path (default: chat)"
    )
    command.add_argument("--model", metavar="NAME", help="which of the served models")
    command.add_argument("--max-tokens", type=int, metavar="N", help="the most tokens to generate")
    command.add_argument("--temperature", type=float, metavar="T")
    command.add_argument("--lane", default="", metavar="LANE", help="interactive, standard (default) or bulk")
    command.add_argument("--priority", type=int, default=0, metavar="N", help="within the lane; lower goes first")
    command.add_argument("--deadline", metavar="WHEN", help="30s, 15m, 2h, 1d, or a time; later the job expires")
    _best_effort(command)
    command.add_argument("--not-before", metavar="WHEN", help="start no earlier: 30s, 2h, or a time")
    command.add_argument("--window", default="", metavar="NAME", help="start only in this off-peak window")
    command.add_argument("--batch", default="", metavar="NAME", help="pause and cancel it together with others")
    command.add_argument("--id", dest="job_id", metavar="ID", help="a job id of your own; refused if used before")
    command.add_argument("--key", metavar="KEY", help="idempotency key: the same key gives the same job")
    command.add_argument("--custom-id", default="", metavar="TEXT", help="your own name for it, returned in the result")
    _address(command)


def _best_effort(command: argparse.ArgumentParser) -> None:
    command.add_argument("--best-effort", action="store_true", help="take it even if the deadline cannot hold")


def _wait(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", action="store_true", help="wait for the result")
    command.add_argument("--timeout", metavar="TIME", help="wait at most so long (30s, 15m …); then exit 4")


def _submit(command: argparse.ArgumentParser) -> None:
    _request(command)
    _wait(command)


def _stream(command: argparse.ArgumentParser) -> None:
    _request(command)
    command.add_argument("--job", metavar="ID", help="attach to a job submitted elsewhere, from its first token")
    command.add_argument("--timeout", metavar="TIME", help="stop watching after so long; exit 4")


def _result(command: argparse.ArgumentParser) -> None:
    command.add_argument("job", metavar="ID")
    _address(command)
    _wait(command)


def _cancel(command: argparse.ArgumentParser) -> None:
    command.add_argument("job", nargs="*", metavar="ID")
    command.add_argument("--batch", default="", metavar="NAME", help="all jobs submitted with this batch name")
    command.add_argument("--all", action="store_true", help="all jobs of the tenant")
    _address(command)


def _pause(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pool", metavar="NAME", help="which one (default: client.pool)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--tenant", metavar="NAME", help="only this tenant's jobs")
    which.add_argument("--batch", metavar="NAME", help="only the jobs of this batch")


def _tenants(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weight", action="append", default=[], metavar="NAME=N", help="its share of the pool; others have 1"
    )
    _address(command)


def _jobs(command: argparse.ArgumentParser) -> None:
    _address(command)
    command.add_argument("--limit", type=int, default=20, metavar="N", help="of each kind (default: 20)")
    command.add_argument("--all-tenants", action="store_true")


def _up(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="M", help="what vLLM's --model takes; default: a tiny model made here")
    command.add_argument("--consumers", type=int, default=1, metavar="N", help="how many (default: 1)")
    command.add_argument(
        "--scale", action="store_true", help="consumers are started and stopped as they are needed, from zero and back"
    )
    command.add_argument(
        "--max", dest="consumers_max", type=int, metavar="N", help="with --scale: the most (default: one a GPU, or 2)"
    )
    command.add_argument("--no-consumer", action="store_true", help="no consumer, only the rest")
    command.add_argument("--no-dispatcher", action="store_true", help="jobs go straight to the consumers, unordered")
    command.add_argument("--no-gateway", action="store_true", help="no HTTP, no page")
    command.add_argument("--verbose", action="store_true", help="show everything the consumers and vLLM say")


def _scale(command: argparse.ArgumentParser) -> None:
    command.add_argument("replicas", nargs="?", type=int, metavar="N", help="how many consumers")
    command.add_argument("--pool", metavar="NAME", help="which one (default: client.pool)")
    command.add_argument("--for", dest="duration", metavar="TIME", help="30m, 2h …; then the policies decide again")
    command.add_argument("--auto", action="store_true", help="the policies decide again, now")


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pool", metavar="NAME", help="which one (default: client.pool)")
    command.add_argument("--at", metavar="TIME", help="10m (ago), 14:05, or a date and time (default: now)")


def _run_batch(command: argparse.ArgumentParser) -> None:
    command.add_argument("-i", "--input", required=True, metavar="IN.jsonl")
    command.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="appended to as answers arrive")
    command.add_argument("--model", metavar="M", help="for the consumer that is started when no broker runs")
    command.add_argument("--concurrency", type=int, default=256, metavar="N", help="jobs in flight (default: 256)")
    command.add_argument("--lane", default="bulk", metavar="LANE", help="interactive, standard or bulk")
    command.add_argument("--priority", type=int, default=0, metavar="N")
    command.add_argument("--deadline", metavar="WHEN", help="30s, 15m, 2h, 1d, or a time; later lines expire")
    _best_effort(command)
    command.add_argument("--batch", default="", metavar="NAME", help="pause and cancel the lines under this name")
    command.add_argument("--stream", action="store_true", help="count tokens as they come; adds ITL to the summary")
    command.add_argument("--own", action="store_true", help="a broker and consumer of its own, even if one runs")
    command.add_argument("--overwrite", action="store_true", help="forget what OUT.jsonl and its run hold")
    command.add_argument(
        "--strict", action="store_true", help="exit 1 when a line failed (default: 0 if all have answers)"
    )
    _address(command)
