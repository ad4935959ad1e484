from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from producer.cli import overrides
from producer.cli.bench import BENCHES, PASSED_ON
from producer.cli.exits import Exit, exit_of
from producer.cli.jobs import table
from producer.cli.main import main
from producer.cli.promises import told
from producer.cli.show_config import toml_of
from producer.cli.times import deadline_of, seconds_of
from schemas.config import Config, load, masked
from schemas.dispatch import Promise
from schemas.errors import BusUnavailable, ConfigError, JobMalformed, ResultPending

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "rest", "taken"),
    [
        (["submit", "--client.pool", "a", "text"], ["submit", "text"], ["--client.pool", "a"]),
        (["submit", "text", "--engine.x=4"], ["submit", "text"], ["--engine.x=4"]),
        (["up", "--engine.flag", "--verbose"], ["up", "--verbose"], ["--engine.flag"]),
        (["submit", "--", "--a.b", "c"], ["submit", "--", "--a.b", "c"], []),
        (["result", "--timeout", "3.5"], ["result", "--timeout", "3.5"], []),
        (["up", "--engine.x", "-1"], ["up"], ["--engine.x", "-1"]),
    ],
)
def test_settings_are_taken_out_before_argparse_misreads_their_values(
    words: list[str], rest: list[str], taken: list[str]
) -> None:
    assert overrides.split(words) == (rest, taken)


def test_times_are_read_as_people_write_them() -> None:
    assert [seconds_of(text, "--t") for text in ("90", "1.5s", "2m", "1h", "1d")] == [90, 1.5, 120, 3600, 86400]
    assert deadline_of("30s", NOW) == NOW + timedelta(seconds=30)
    assert deadline_of("2026-01-02T03:04", NOW) == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert deadline_of("8:30", NOW) == NOW + timedelta(hours=8.5)
    assert deadline_of("0:00", NOW) == NOW + timedelta(days=1)
    for text in ("soon", "", "5 parsecs", "25:00"):
        with pytest.raises(ConfigError, match="--deadline"):
            deadline_of(text, NOW)


def test_errors_have_exit_codes_scripts_can_use() -> None:
    assert exit_of(BusUnavailable("x")) == 3
    assert exit_of(ResultPending("x")) == 4
    assert exit_of(ConfigError("x")) == exit_of(JobMalformed("x")) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["submit", "x", "--client.pol", "a"], "client.pol|`pol`"),
        (["submit"], "TEXT or --body"),
        (["submit", "x", "--deadline", "soon"], "--deadline"),
        (["submit", "--body", "/nowhere.json"], "/nowhere.json"),
        (["stream", "x", "--job", "j"], "exactly one"),
        (["run-batch", "-i", "/nowhere.jsonl", "-o", "/nowhere.out", "--own"], "/nowhere.jsonl"),
        (["run-batch", "-i", "x", "-o", "y", "--lane", "fast"], "lane 'fast'"),
        (["run-batch", "-i", "x", "-o", "y", "--concurrency", "0"], "--concurrency"),
        (["bench", "nothing"], "no bench"),
        (["cancel"], "one of them"),
        (["cancel", "job", "--all"], "one of them"),
        (["tenants", "--weight", "a"], "NAME=3"),
        (["submit", "x", "--not-before", "soon"], "--not-before"),
        (["up", "--consumers", "0"], "--consumers"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert main(words) == Exit.USAGE

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("penstock: ")

    assert re.search(says, error)


def test_no_broker_is_exit_3_and_json_says_so_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert main(["jobs", "--json"]) == Exit.BROKER

    printed = capsys.readouterr()
    assert "penstock up" in printed.err
    assert json.loads(printed.out)["error"]["code"] == "broker_unavailable"


def test_the_printed_configuration_can_be_read_again() -> None:
    config = load("", {}, {"engine.tensor_parallel_size": "4", "broker.url": "nats://u:p@h:1", "consumer.pool": "p"})

    text = toml_of(masked(config))

    assert "p@h" not in text.replace("***@h", "")
    again = load(text, {}, {})
    assert again.engine == config.engine
    assert again.consumer == config.consumer
    assert load(toml_of(masked(Config())), {}, {}) == Config()


def test_a_table_leaves_out_empty_columns() -> None:
    assert table([("A", "B", "C"), ("1", "", "x"), ("22", "", "y")]) == ["A   C", "1   x", "22  y"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from producer.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('nats', 'rich', 'msgspec.json', 'asyncio') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "exit codes" in done.stdout
    assert "nats" not in done.stderr
    assert "rich" not in done.stderr


def test_a_promise_is_one_line_that_says_how_sure_it_is() -> None:
    eta = int(NOW.timestamp() * 1000) + 90_000

    sure = told(Promise(eta_unix_ms=eta, latest_unix_ms=eta + 30_000, position=1200), NOW)
    unknown = told(Promise(position=0), NOW)

    assert sure == "done about 00:01:30, with 95% by 00:02:00; 1,200 before it"
    assert unknown == "next in line; nothing is known of the pool's speed yet"
    assert told(Promise(reason="the pool is paused"), NOW) == "the pool is paused"


def test_every_bench_that_is_listed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0

    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert "submit" in listed
    for name in listed:
        module = f"scaler.bench.{name}" if name in PASSED_ON else BENCHES[name][0]
        assert find_spec(module) is not None


@pytest.mark.parametrize(("command", "module"), [("consumer", ["consumer"]), ("dispatcher", ["scaler", "dispatcher"])])
def test_a_program_of_its_own_gets_its_arguments_untouched(
    command: str, module: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, words: became.append(words) or sys.exit(0))

    with pytest.raises(SystemExit):
        main([command, "--help", "--a.b", "c"])

    assert became == [[sys.executable, "-P", "-m", *module, "--help", "--a.b", "c"]]
