"""`python -m consumer.engine.serve_load`: vLLM's own `vllm bench serve`, unmodified, kept in memory between runs.

Importing it costs half a minute, so one process runs it as often as it is asked: reads one JSON list of command-line
words a line, answers with the JSON that `--save-result` would write.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from consumer.engine.vllm_arguments import environment_defaults
from infra import settings


def main() -> int:
    environment = os.environ  # noqa: TID251 - this is a main()
    cfg = settings.load_config("", sys.argv[1:], environment)
    for name, value in environment_defaults(cfg.engine).items():
        environment.setdefault(name, value)
    from vllm.benchmarks import serve  # noqa: PLC0415 - reads the environment
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    parser: Any = FlexibleArgumentParser(prog="vllm bench serve")
    serve.add_cli_args(parser)
    from consumer.engine.vllm import model_of  # noqa: PLC0415

    model, _ = model_of(cfg.engine, settings.data_dir(cfg, environment))
    print(json.dumps({"ready": True, "model": str(model)}), flush=True)  # noqa: T201
    for line in sys.stdin:
        # It prints a report, and answers go to stdout.
        with contextlib.redirect_stdout(sys.stderr):
            seen: dict[str, Any] = serve.main(parser.parse_args(json.loads(line)))
        kept = {key: value for key, value in seen.items() if isinstance(value, (int, float, str))}
        print(json.dumps(kept), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
