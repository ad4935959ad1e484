from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.simulate.trace_file import parsed, read_trace
from schemas.errors import ConfigError

THREE = [(0.0, 10.0, 1.0), (1.5, 20.0, 2.0), (61.5, 30.0, 3.0)]


def rows(text: str, unit: str = "") -> list[tuple[float, float, float]]:
    trace = parsed(text.splitlines(keepends=True), "t", unit)
    columns = (trace.arrival_s.round(3), trace.prompt, trace.output)
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


@pytest.mark.parametrize(
    "text",
    [
        # Azure 2023: seven digits after the point, and none.
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:00:00.0000000,10,1\n2023-11-16 18:00:01.5000000,20,2\n"
            "2023-11-16 18:01:01.5,30,3\n"
        ),
        # Azure 2024: with a zone, here several.
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2024-05-10 00:00:00+00:00,10,1\n2024-05-10 00:00:01.500000+00:00,20,2\n"
            "2024-05-10T02:01:01.5+02:00,30,3\n"
        ),
        # BurstGPT: seconds, other names, more columns.
        (
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,10,1,11,Conversation log\n"
            "6.5,GPT-4,20,2,22,API log\n66.5,GPT-4,30,3,33,API log\n"
        ),
        # Columns in another order; CRLF; not sorted; empty lines; quotes; a byte-order mark is cut by the file.
        'output_tokens,arrival_time,prompt_tokens\r\n3,"66.5",30\r\n\r\n1,5,10\r\n2,6.5,20\r\n\r\n',
        # No heading; semicolons; tabs; Z; milliseconds since 1970.
        "5,10,1\n6.5,20,2\n66.5,30,3",
        "time;prompt;output\n5;10;1\n6.5;20;2\n66.5;30;3\n",
        "Timestamp\tinput_length\toutput_length\n5\t10\t1\n6.5\t20\t2\n66.5\t30\t3\n",
        "time,prompt,output\n2024-05-10T00:00:00Z,10,1\n2024-05-10T00:00:01.5Z,20,2\n2024-05-10T00:01:01.500Z,30,3\n",
        "time,prompt,output\n1715299200000,10,1\n1715299201500,20,2\n1715299261500,30,3\n",
        # Excel's hand; JSON lines.
        "time,prompt,output\n05/10/2024 01:00:00 PM,10,1\n05/10/2024 01:00:00 PM,20,2\n05/10/2024 01:01:00 PM,30,3\n",
        (
            '{"timestamp": 5, "input_length": 10, "output_length": 1}\n{"timestamp": 6.5, "input_length": 20, '
            '"output_length": 2, "hash_ids": [1]}\n{"timestamp": 66.5, "input_length": 30, "output_length": 3}\n'
        ),
    ],
)
def test_the_usual_files_are_read_as_they_come(text: str) -> None:
    found = rows(text)

    if "PM" in text:
        assert found == [(0.0, 10.0, 1.0), (0.0, 20.0, 2.0), (60.0, 30.0, 3.0)]
    else:
        assert found == THREE


def test_a_unit_is_taken_at_its_word() -> None:
    assert rows('{"timestamp": 5000, "input_length": 10, "output_length": 1}', "ms") == [(0.0, 10.0, 1.0)]
    assert rows("0,10,1\n1500,20,2\n61500,30,3\n", "ms") == THREE


def test_times_without_a_zone_are_not_folded_by_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")

    found = rows("time,prompt,output\n2024-11-03 00:30:00,10,1\n2024-11-03 02:30:00,20,2\n")

    assert found[1][0] == 7200.0


def test_a_gzipped_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress("\ufefftime,prompt,output\r\n5,10,1\r\n".encode()))

    trace = read_trace(str(path))

    assert (trace.name, trace.prompt.tolist()) == ("trace", [10.0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"t: no requests in it; a line is `time,prompt tokens,output tokens`"),
        ("\n\n", r"no requests in it"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", r"no requests in it"),
        ("when,in,out\n1,2,3\n", r"no column for time \(such as timestamp\), prompt tokens \(such as contexttokens\)"),
        ("time,prompt,reply\n1,2,3\n", r"no column for output tokens .*; its columns are time, prompt, reply"),
        ("time,prompt,output\n1,2\n", r"t, line 2: 2 columns, 3 are needed"),
        ("time,prompt,output\n1,2,3\nsoon,2,3\n", r"t, line 3: 'soon' is no time: write seconds, or 2023"),
        ("time,prompt,output\n1,2,nan\n", r"t, line 2: 'nan' is no number of output tokens"),
        ("time,prompt,output\n1,-2,3\n", r"t, line 2: '-2' is no number of prompt tokens"),
        ("time,prompt,output\n1,,3\n", r"t, line 2: '' is no number of prompt tokens"),
        ("time,prompt,output\ninf,2,3\n", r"'inf' is no time"),
        ("time,prompt,output\n2023-11-16 18:00:00,1,2\n1923-11-16 18:00:00,1,2\n", r"days between the first and the"),
        ('{"timestamp": 5, "input_length": 10}\n', r"no column for output tokens"),
        ('{"timestamp": 5\n', r"t, line 1: no JSON object"),
    ],
)
def test_what_is_no_trace_is_named_with_its_line_and_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rows(text)


def test_a_file_that_is_no_text_is_an_error_of_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"time,prompt,output\n\xff\xfe\n")

    with pytest.raises(ConfigError, match="not UTF-8 at byte"):
        read_trace(str(path))
    with pytest.raises(ConfigError, match="there is s, ms, us, ns"):
        read_trace(str(path), "minutes")
    (tmp_path / "trace.gz").write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="gzip"):
        read_trace(str(tmp_path / "trace.gz"))


@settings(max_examples=300)
@given(st.lists(st.text(alphabet='0123456789.,:;-+TZ"{}\t \réàe', max_size=30), max_size=6))
def test_any_text_is_a_trace_or_a_clear_error(lines: list[str]) -> None:
    try:
        trace = parsed(lines, "t")
    except ConfigError:
        return
    assert np.isfinite(trace.arrival_s).all()
    assert (np.diff(trace.arrival_s) >= 0).all()
