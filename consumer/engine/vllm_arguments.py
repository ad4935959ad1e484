"""From `engine.*` settings to vLLM's own parsed `vllm serve` arguments. vLLM's parser judges, we only name the key."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any, NoReturn

from schemas.config import EngineSection, EngineValue
from schemas.errors import ConfigError

# Where vLLM's default is not what an unattended consumer wants.
_DEFAULTS: dict[str, EngineValue] = {
    # Orders what waits inside the engine by our lanes; with equal priorities it is first come, first served.
    "scheduling_policy": "priority",
}


# What vLLM would understand, but is set elsewhere here.
_OURS = {"model": "set engine.model", "config": "write vLLM's arguments into the [engine] section itself"}

# The tiny model is stored in float32, which vLLM would lower on CPU; its answers are to be repeatable to the last bit.
# Compiling it takes a C compiler, half a minute, and wins nothing.
# And under a JSON schema it would lose itself in blanks between the tokens, which the grammar else allows without end.
_TINY_DEFAULTS: dict[str, EngineValue] = {
    "dtype": "float32",
    "enforce_eager": True,
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}


def environment_defaults(section: EngineSection) -> dict[str, str]:
    """Set before vLLM is imported, unless the user did."""
    defaults = {
        # At warning, vLLM tells CPU users ten lines about what their machine lacks.
        "VLLM_LOGGING_LEVEL": "ERROR" if section.model == "tiny" else "WARNING",
        "PYTHONWARNINGS": "ignore",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # GiB, read on CPU only. vLLM's own default takes half of the machine.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TQDM_DISABLE": "1",
    }
    if section.model == "tiny":
        # It is a folder of ours: nothing to ask any hub.
        defaults["HF_HUB_OFFLINE"] = "1"
    if section.model == "tiny" or (shutil.which("g++") is None and shutil.which("nvidia-smi") is None):
        # vLLM compiles some CPU code when first used. That takes seconds, and without a compiler a single request for
        # logprobs kills the engine (seen with 0.32).
        defaults["TORCHDYNAMO_DISABLE"] = "1"
    return defaults


def environment_of_zygote() -> dict[str, str]:
    """VLLM's CPU workers want torch's own OpenMP before any other; it is set for new processes, but forks are none."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None or shutil.which("nvidia-smi"):
        return {}
    folder = Path(torch.origin).parent
    found = sorted([*folder.parent.glob("torch.libs/libgomp*.so*"), *folder.glob("lib/libgomp*.so*")])
    return {"LD_PRELOAD": str(found[0])} if found else {}


def parse(model: str, arguments: dict[str, EngineValue], served_name: str = "") -> argparse.Namespace:
    """VLLM's namespace for `vllm serve MODEL …`.

    Raises:
        ConfigError: unknown key, or a value vLLM refuses; names `engine.<key>`.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise _refused(message)

    parser: Any = make_arg_parser(Parser(prog="penstock", add_help=False))
    known: dict[str, argparse.Action] = parser._option_string_actions  # noqa: SLF001 - argparse has no other list
    ours = {**_DEFAULTS, **(_TINY_DEFAULTS if served_name else {})}
    merged = {**ours, **{key.replace("-", "_"): value for key, value in arguments.items()}}
    if served_name:
        merged.setdefault("served_model_name", [served_name])
    words = ["--model", model]
    for key, value in merged.items():
        words += _words(key, value, known)
    parsed: argparse.Namespace = parser.parse_args(words)
    try:
        validate_parsed_serve_args(parsed)
    except (TypeError, ValueError) as error:
        raise _refused(str(error)) from error
    return parsed


def _refused(message: str) -> ConfigError:
    """Argparse begins with the option it means: `argument --max-num-seqs: invalid int value: 'x'`."""
    named = re.match(r"argument (--[\w-]+)[^:]*: (.*)", message, re.DOTALL)
    if named is None:
        return ConfigError(f"engine: {message}", param="engine")
    key = "engine." + named.group(1).removeprefix("--").replace("-", "_")
    return ConfigError(f"{key}: {named.group(2)}", param=key)


def _words(key: str, value: EngineValue, known: dict[str, argparse.Action]) -> list[str]:
    option = "--" + key.replace("_", "-")
    action = known.get(option)
    if key in _OURS:
        raise ConfigError(f"engine.arguments.{key}: {_OURS[key]}", param=f"engine.arguments.{key}")
    if action is None:
        near = difflib.get_close_matches(option, known, n=1)
        hint = f"; did you mean `engine.{near[0].removeprefix('--').replace('-', '_')}`?" if near else ""
        raise ConfigError(f"engine.{key} is not an argument of vLLM{hint}", param=f"engine.{key}")
    if value is None:
        return []
    if isinstance(value, bool):
        return _switch(key, option, on=value, action=action, known=known)
    if action.nargs == 0:
        # Argparse would take the flag, and the value for the name of a model.
        raise ConfigError(f"engine.{key} is true or false, not {value!r}", param=f"engine.{key}")
    if isinstance(value, dict):
        return [option, json.dumps(value)]
    if isinstance(value, list):
        if action.nargs is None and len(value) != 1:
            raise ConfigError(f"engine.{key} takes one value, not a list of {len(value)}", param=f"engine.{key}")
        return [option, *(item if isinstance(item, str) else json.dumps(item) for item in value)]
    return [option, str(value)]


def _switch(
    key: str, option: str, *, on: bool, action: argparse.Action, known: dict[str, argparse.Action]
) -> list[str]:
    if action.nargs != 0:
        return [option, str(on).lower()]
    if on:
        return [option]
    off = "--no-" + option.removeprefix("--")
    if off in known:
        return [off]
    if action.default is True:
        raise ConfigError(f"engine.{key} cannot be switched off in vLLM", param=f"engine.{key}")
    return []
