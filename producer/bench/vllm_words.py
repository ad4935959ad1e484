"""How to start plain vLLM with the engine arguments that our consumer gets. Its `vllm` command is not used: it wants a
package named vllm, and CPU builds have another name.
"""

from __future__ import annotations

import json

from schemas.config import Config

MODULE_SERVE = "vllm.entrypoints.openai.api_server"
MODULE_RUN_BATCH = "vllm.entrypoints.openai.run_batch"


def engine_words(model: str, cfg: Config) -> list[str]:
    """`--model …` and every engine argument, as on a command line."""
    words = ["--model", model]
    arguments = dict(cfg.engine.arguments)
    if cfg.engine.model == "tiny":
        grammar = {"backend": "xgrammar", "disable_any_whitespace": True}
        arguments = {
            "dtype": "float32",
            "enforce_eager": True,
            "structured_outputs_config": grammar,
            **arguments,
        }
    for key, value in arguments.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else "--no-" + option.removeprefix("--"))
        elif value is not None:
            words += [option, value if isinstance(value, str) else json.dumps(value)]
    return words


def quiet_environment() -> dict[str, str]:
    return {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
