from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaler.simulate import commands
from schemas.errors import ConfigError


@pytest.fixture
def trace(tmp_path: Path) -> str:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:{second // 60:02}:{second % 60:02}.0000000,900,60" for second in range(0, 1200, 2)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_json_has_the_three_figures(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--trace", trace, "--policy", "penstock,static", "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["bench"] == "simulate"
    assert set(report["bars"]) == {"gpu_hours_vs_bound", "late_share", "worst_lane_late_share"}
    assert report["bars"]["gpu_hours_vs_bound"]["value"] >= 1
    assert [row["scaler"] for row in report["detail"]["workloads"][0]["rows"]] == ["penstock", "static"]


def test_a_terminal_gets_a_table_and_a_plot(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--trace", trace, "--cold-start", "60"]) == 0

    shown = capsys.readouterr().out
    assert "cold start 60 s" in shown
    assert "█" in shown


def test_an_unknown_policy_is_refused_with_those_there_are(trace: str) -> None:
    with pytest.raises(ConfigError, match=r"--policy magic: there is penstock, static, keda-lag"):
        commands.main(["--trace", trace, "--policy", "magic"])


def test_a_line_that_is_no_request_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1.0,five,6\n")

    with pytest.raises(ConfigError, match=r"bad, line 2: not `time,prompt tokens,output tokens`"):
        commands.main(["--trace", str(path)])


def test_a_trace_that_is_not_there_is_an_error_of_the_operator() -> None:
    with pytest.raises(ConfigError, match=r"trace nowhere\.csv: No such file"):
        commands.main(["--trace", "nowhere.csv"])


def test_a_plan_says_replicas_hours_and_waits(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--jobs-per-s", "1", "--hours", "0.3", "--lanes", "interactive:30:0.5,batch:1800:0.5"]

    assert commands.main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert commands.main(arguments) == 0

    assert plan["always_on"] == 1
    assert plan["keeps_promises"]
    assert set(plan["delay_p99_s"]) == {"interactive", "batch"}
    assert "Without scaling: 1 replicas" in capsys.readouterr().out


def test_lanes_whose_shares_do_not_add_up_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shares add up to 0\.9, not 1"):
        commands.main(["plan", "--lanes", "interactive:30:0.5,batch:1800:0.4"])
