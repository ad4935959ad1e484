"""`python -m consumer.engine.offline`: plain `LLM.generate`, the ceiling that the throughput bench compares with.

Reads one JSON object a line, `{"prompts": […], "output_tokens": […]}`, and answers `{"seconds": s, "tokens": n}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from consumer.engine.vllm_arguments import environment_defaults, parse
from infra import settings


def main() -> int:
    environment = os.environ  # noqa: TID251 - this is a main()
    cfg = settings.load_config("", sys.argv[1:], environment)
    for name, value in environment_defaults(cfg.engine).items():
        environment.setdefault(name, value)
    from vllm import LLM, SamplingParams  # noqa: PLC0415 - reads the environment
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415

    from consumer.engine.vllm import model_of  # noqa: PLC0415

    model, name = model_of(cfg.engine, settings.data_dir(cfg, environment))
    arguments = parse(model, cfg.engine.arguments, name)
    llm: Any = LLM.from_engine_args(EngineArgs.from_cli_args(arguments))
    # vLLM prints to stdout at times; answers go there last, one line each.
    print(json.dumps({"ready": True, "model": str(Path(model))}), flush=True)  # noqa: T201
    for line in sys.stdin:
        request = json.loads(line)
        params = [
            SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
            for tokens in request["output_tokens"]
        ]
        begun = time.perf_counter()
        outputs: list[Any] = llm.generate(request["prompts"], params, use_tqdm=False)
        seconds = time.perf_counter() - begun
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
