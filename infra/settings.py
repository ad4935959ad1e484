"""From a command line, a file and an environment to the one `Config`. Called by `main()`s only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.config import Config, load
from schemas.errors import ConfigError

DEFAULT_FILE = "penstock.toml"


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`. Every setting may also be given as `--section.key value`; parse with `parse_known_args`."""
    parser.add_argument(
        "--config", default="", metavar="FILE", help=f"TOML settings (default: ./{DEFAULT_FILE} if there is one)"
    )


def load_config(config_file: str, extra_arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """
    Raises:
        ConfigError: the file cannot be read, an argument is not `--section.key value`, or as `schemas.config.load`.
    """
    text = ""
    path = Path(config_file or DEFAULT_FILE)
    if config_file or path.exists():
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}", param="config") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--config {path}: not UTF-8 at byte {error.start}", param="config") from error
    return load(text, environment, overrides_of(extra_arguments))


def overrides_of(arguments: Sequence[str]) -> dict[str, str]:
    """`--a.b c --d=e --flag` as `{"a.b": "c", "d": "e", "flag": "true"}`.

    Raises:
        ConfigError: a word that belongs to no option.
    """
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ConfigError(f"{word!r} is not an option: settings look like --consumer.grace_s 20")
        if not equals:
            is_flag = not rest or rest[0].startswith("--")
            value = "true" if is_flag else rest.pop(0)
        if "." not in name and name not in Config.__struct_fields__:
            raise ConfigError(f"unknown option --{name}: settings look like --consumer.grace_s 20", param=name)
        overrides[name] = value
    return overrides


def data_dir(cfg: Config, environment: Mapping[str, str]) -> Path:
    """Where penstock keeps the embedded broker's data and the tiny model."""
    if cfg.data_dir:
        return Path(cfg.data_dir).expanduser().resolve()
    home = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".local" / "share")
    return Path(home) / "penstock"
