from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from scaler.schedule import commands
from schemas.errors import ConfigError

NOW_UNIX_S = 1_774_000_000.0

THREE_WINDOWS = """
[windows.office]
cron = "0 8 * * 1-5"
tz = "Europe/Berlin"
hours = 9
floor = 3
except_on = ["12-25", "2026-03-30..2026-03-31"]

[windows.night]
cron = "30 2 * * *"
tz = "Europe/Berlin"
hours = 3
ceiling = 1

[windows.early]
cron = "0 4 * * *"
tz = "Europe/Berlin"
hours = 4
floor = 2
"""


@pytest.fixture
def three(tmp_path: Path) -> str:
    path = tmp_path / "windows.toml"
    path.write_text(THREE_WINDOWS)
    return str(path)


def previewed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert commands.main(["test", *arguments, "--json"], {}, NOW_UNIX_S) == 0
    return json.loads(capsys.readouterr().out)


def test_a_day_of_23_hours_says_what_the_clock_does_to_its_windows(
    three: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = previewed(capsys, "--windows", three, "--from", "2026-03-29", "--to", "2026-03-29")

    assert sum(one["hours"] for one in seen["periods"]) == 23
    assert [(one["before"], one["after"]) for one in seen["clock_changes"]] == [("02:00", "03:00")]
    said = [note["text"] for note in seen["notes"]]
    assert "clocks of Europe/Berlin go forward from 02:00 to 03:00" in said
    assert "night opens at 03:00: the clock skips the time that was meant" in said


def test_windows_that_overlap_say_whose_floor_loses(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = previewed(capsys, "--windows", three, "--from", "2026-03-27", "--to", "2026-03-27")

    overlapping = [one for one in seen["periods"] if len(one["windows"]) == 2]
    assert [(one["floor"], one["ceiling"], one["windows"]) for one in overlapping] == [(1, 1, ["night", "early"])]
    assert "the floor 2 of early loses to the ceiling 1 of night" in [note["text"] for note in seen["notes"]]


def test_a_day_of_the_calendar_is_left_out_and_said(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = previewed(capsys, "--windows", three, "--from", "2026-03-30", "--to", "2026-04-01")

    opened = [one["from"] for one in seen["periods"] if "office" in one["windows"]]
    assert opened == ["2026-04-01T08:00:00+02:00"]
    said = [note["text"] for note in seen["notes"] if "office" in note["text"]]
    assert said[0] == "office does not open at 08:00 on 2026-03-30: except_on 2026-03-30..2026-03-31"


def test_another_window_replaces_a_holiday(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_text(
        '[windows.usual]\ncron = "0 8 * * *"\nhours = 9\nfloor = 3\nexcept_on = ["12-25"]\n'
        '[windows.holiday]\ncron = "0 10 * * *"\nhours = 2\ntarget = 1\nonly_on = ["12-25"]\n'
    )

    seen = previewed(capsys, "--windows", str(path), "--from", "2027-12-24", "--to", "2027-12-26")

    opened = [(one["from"][:13], one["floor"], one["windows"]) for one in seen["periods"] if one["windows"]]
    assert opened == [
        ("2027-12-24T08", 3, ["usual"]),
        ("2027-12-25T10", 1, ["holiday"]),
        ("2027-12-26T08", 3, ["usual"]),
    ]


def test_a_table_a_plot_and_notes_come_out(three: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        commands.main(["test", "--windows", three, "--from", "2026-03-28", "--to", "2026-03-30"], {}, NOW_UNIX_S) == 0
    )

    shown = capsys.readouterr().out
    assert "Sun 2026-03-29 07:00 CEST" not in shown.split("CET")[0]
    assert "night + early" in shown
    assert "|Sat 28" in shown
    assert "▲" in shown
    assert "█" in shown


def test_a_picture_is_well_formed_and_marks_the_change_of_the_clocks(
    three: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "windows.svg"

    previewed(capsys, "--windows", three, "--from", "2026-10-24", "--to", "2026-10-26", "--svg", str(picture))

    words = [one.text for one in ET.parse(picture).iter() if one.tag.endswith("text")]
    assert {"office", "night", "early", "Europe/Berlin 03:00 → 02:00"} <= set(words)


def test_one_window_comes_from_options_and_a_week_from_today_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    seen = previewed(capsys, "--cron", "0 8 29 2 *", "--tz", "Asia/Kolkata", "--hours", "2", "--target", "4")

    assert (seen["tz"], seen["from"][11:], seen["notes"][0]["text"]) == (
        "Asia/Kolkata",
        "00:00:00+05:30",
        "window does not open in this time",
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], r"which windows\? Give --cron '0 8 \* \* 1-5'"),
        (["--cron", "0 8 * *"], r"schedule\.window\.cron: .* has 4 fields, not 5"),
        (["--cron", "0 24 * * *"], r"schedule\.window\.cron: .*'24' is no hour: 0 to 23"),
        (["--cron", "0 8 * * *", "--tz", "Berlin"], r"schedule\.window\.tz: no time zone 'Berlin': write one of"),
        (["--cron", "0 8 * * *", "--hours", "0"], r"schedule\.window\.hours: 0 is not between 0 and"),
        (["--cron", "0 8 * * *", "--floor", "3", "--ceiling", "2"], r"schedule\.window\.floor: 3 does not lie"),
        (["--cron", "0 8 * * *", "--floor", "3", "--target", "2"], r"schedule\.window\.target: 2 is a floor and"),
        (["--cron", "0 8 * * *", "--except-on", "christmas"], r"except_on: 'christmas' is no date: write 2026-12-25"),
        (["--cron", "0 8 * * *", "--except-on", "2026-02-30"], r"except_on: '2026-02-30' is no date"),
        (["--cron", "0 8 * * *", "--from", "soon"], r"--from 'soon' is no time: write 2026-03-29"),
        (["--cron", "0 8 * * *", "--from", "2026-03-29", "--to", "2026-03-28"], r"is not after --from"),
        (["--cron", "0 8 * * *", "--to", "2046-03-28"], r"more than 800 days"),
        (["--cron", "0 8 * * *", "--in", "Moon"], r"--in Moon: no such time zone"),
        (["--windows", "nowhere.toml"], r"--windows nowhere\.toml: No such file"),
        (["--cron", "0 8 * * *", "--pool", "big"], r"--cron and --pool together"),
        (["--pool", "big"], r"--pool big: no such pool"),
        (["--cron", "0 8 * * *", "--svg", "/nowhere/at/all.svg"], r"--svg /nowhere/at/all\.svg: No such file"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        commands.main(["test", *arguments], {}, NOW_UNIX_S)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("windows = 3", r"no table in it: write \[windows\.office\]"),
        ("[windows", r"is not TOML"),
        ('[windows]\noffice = "nine to five"', r"windows\.office is no table"),
        ('[windows.office]\ncron = "0 8 * * *"', r"schedule\.office: .*`hours`; a window has cron, tz, hours"),
        ('[windows.office]\ncron = "0 8 * * *"\nhours = 1\nflor = 2', r"schedule\.office: .*`flor`"),
        ('[windows.office]\ncron = "0 8 * * *"\nhours = "1"', r"schedule\.office: .*`\$\.hours`"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_what_is_wrong(tmp_path: Path, toml: str, says: str) -> None:
    path = tmp_path / "windows.toml"
    path.write_text(toml)

    with pytest.raises(ConfigError, match=says):
        commands.main(["test", "--windows", str(path)], {}, NOW_UNIX_S)


POOLS = """
[scaler.pools.big.windows.night]
cron = "0 22 * * *"
tz = "America/New_York"
hours = 8
target = 2
only_on = ["2026-12-24..2026-12-26"]

[scaler.pools.small]
"""


def test_a_pools_windows_are_those_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(POOLS)

    seen = previewed(capsys, "--pool", "big", "--config", str(path), "--from", "2026-12-23", "--to", "2026-12-28")

    opened = [one["from"] for one in seen["periods"] if one["windows"] == ["night"]]
    assert opened == [f"2026-12-{day}T22:00:00-05:00" for day in (24, 25, 26)]
    with pytest.raises(
        ConfigError, match=r"--pool small has no windows: write a table \[scaler\.pools\.small\.windows"
    ):
        commands.main(["test", "--pool", "small", "--config", str(path)], {}, NOW_UNIX_S)
    with pytest.raises(ConfigError, match=r"--pool tiny: no such pool; there is big, small"):
        commands.main(["test", "--pool", "tiny", "--config", str(path)], {}, NOW_UNIX_S)
