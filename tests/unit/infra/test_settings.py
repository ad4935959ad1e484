from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from infra.settings import add_config_options, data_dir, load_config, overrides_of
from schemas.config import Config
from schemas.errors import ConfigError


def test_settings_on_the_command_line_reach_the_tree() -> None:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    arguments, extra = parser.parse_known_args(
        ["--consumer.grace_s", "7", "--engine.model=m", "--engine.enforce_eager", "--log.level", "debug"]
    )

    cfg = load_config(arguments.config, extra, {})

    assert (cfg.consumer.grace_s, cfg.engine.model, cfg.log.level) == (7.0, "m", "debug")
    assert cfg.engine.arguments == {"enforce_eager": True}


def test_a_negative_number_is_a_value_not_an_option() -> None:
    assert overrides_of(["--engine.seed", "-1"]) == {"engine.seed": "-1"}


def test_a_value_that_looks_like_an_option_is_given_with_equals() -> None:
    assert overrides_of(["--engine.chat_template=--x=y"]) == {"engine.chat_template": "--x=y"}


@pytest.mark.parametrize("words", [["what"], ["--consumer.grace_s", "1", "what"], ["--"], ["--nonsense", "1"], ["-x"]])
def test_a_word_that_is_no_setting_is_named(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--consumer\.grace_s 20"):
        overrides_of(words)


def test_the_file_beside_us_is_read_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "penstock.toml").write_text('data_dir = "/d"\n')
    monkeypatch.chdir(tmp_path)

    assert load_config("", [], {}).data_dir == "/d"


def test_no_file_beside_us_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_config("", [], {}) == Config()


def test_a_file_asked_for_and_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_config(str(tmp_path / "absent.toml"), [], {})


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match=r"binary\.toml: not UTF-8 at byte 0"):
        load_config(str(tmp_path / "binary.toml"), [], {})


@pytest.mark.parametrize(
    ("cfg", "environment", "expected"),
    [
        (Config(data_dir="/d"), {"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/d"),
        (Config(), {"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/penstock"),
        (Config(), {"HOME": "/h"}, "/h/.local/share/penstock"),
    ],
)
def test_data_lies_where_the_user_said_else_in_his_home(
    cfg: Config, environment: dict[str, str], expected: str
) -> None:
    assert data_dir(cfg, environment) == Path(expected)
