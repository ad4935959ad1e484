from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

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

    with pytest.raises(ConfigError, match=r"bad, line 2: .*not `time,prompt tokens,output tokens`"):
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
    assert "Without scaling: 1 consumer," in capsys.readouterr().out


def test_lanes_whose_shares_do_not_add_up_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shares add up to 0\.9, not 1"):
        commands.main(["plan", "--lanes", "interactive:30:0.5,batch:1800:0.4"])


def test_a_picture_comes_out_for_every_workload(trace: str, tmp_path: Path) -> None:
    picture = tmp_path / "course.svg"

    assert (
        commands.main(["--trace", trace, "--trace", trace, "--policy", "penstock,static", "--svg", str(picture)]) == 0
    )

    for path in (picture, tmp_path / "course-2.svg"):
        words = " ".join(one.text or "" for one in ET.parse(path).iter() if one.tag.endswith("text"))
        assert "clairvoyant bound" in words
        assert "—— static" in words


def test_the_table_ends_with_the_bound(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--trace", trace, "--policy", "penstock,static"]) == 0

    assert "clairvoyant bound" in capsys.readouterr().out


def test_one_request_is_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.csv"
    path.write_text("time,prompt,output\n7,100,10\n")

    assert commands.main(["--trace", str(path), "--policy", "all", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["detail"]["workloads"][0]["rows"]
    assert {row["scaler"] for row in rows} >= {
        "penstock",
        "static",
        "keda-lag",
        "hpa-kv",
        "knative-kpa",
        "sagemaker",
        "dynamo-batch",
    }
    assert all(row["late_share"] == 0 for row in rows)


def test_a_gap_of_days_is_slept_through_and_paid_for_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gap.csv"
    path.write_text("time,prompt,output\n0,100,10\n172800,100,10\n")

    assert commands.main(["--trace", str(path), "--lanes", "batch:3600:1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["detail"]["workloads"][0]["rows"]
    assert row["gpu_hours"] < 1
    assert row["starts"] == 2


def test_rates_that_were_measured_make_the_replica(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--prefill-tokens-per-s", "10000", "--decode-tokens-per-s", "5000", "--kv-tokens", "50000"]

    assert commands.main(["--trace", trace, *rates, "--json"]) == 0
    service = json.loads(capsys.readouterr().out)["detail"]["workloads"][0]["service"]
    assert service["prompt_token_s"] == pytest.approx(1e-4)
    assert service["sequence_s"] + service["step_s"] / service["sequences_max"] == pytest.approx(1 / 5000)
    assert service["kv_tokens"] == 50_000


def test_a_plan_that_cannot_hold_says_so_and_what_it_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--jobs-per-s", "20", "--hours", "0.2", "--replicas-max", "2", "--price", "3"]

    assert commands.main(arguments) == 0

    shown = capsys.readouterr().out
    assert "promises BROKEN: more than --replicas-max 2" in shown
    assert "promises BROKEN for" in shown
    assert "a day)" in shown
    assert "assumed: give --prefill-tokens-per-s" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        ["--jobs-per-s", "-1"],
        ["--hours", "0"],
        ["--price", "-1"],
        ["--cold-start", "nan"],
        ["--gpus-per-replica", "0"],
        ["--thin", "2"],
        ["--output-tokens", "many"],
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commands.main(["plan", *wrong])

    assert f"argument {wrong[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("lanes", ["interactive:30", "a:0:1", "a:10:0.5,a:20:0.5", ":30:1", "a:nan:1"])
def test_lanes_that_are_none_are_refused(lanes: str) -> None:
    with pytest.raises(ConfigError, match="--lanes"):
        commands.main(["plan", "--lanes", lanes])
