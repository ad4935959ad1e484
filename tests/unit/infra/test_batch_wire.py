from __future__ import annotations

import nats.errors
import pytest

from infra.batch_wire import staged
from infra.messages import Outgoing


def test_messages_are_numbered_and_their_sizes_true() -> None:
    wire = staged([Outgoing("a.b", b"one", "id-1", {"K": "v"}), Outgoing("a.c", "zwölf".encode())], "batch")

    first, rest = wire.split(b"\r\none\r\n")
    line, _, headers = first.partition(b"\r\n")
    _, subject, header_bytes, all_bytes = line.split(b" ")
    assert subject == b"a.b"
    assert len(headers) + 2 == int(header_bytes)  # the empty line that ends them
    assert int(all_bytes) == int(header_bytes) + 3
    assert b"K: v\r\nNats-Msg-Id: id-1\r\nNats-Batch-Id: batch\r\nNats-Batch-Sequence: 1" in headers
    assert b"Nats-Batch-Sequence: 2" in rest
    assert b"Nats-Batch-Commit" not in wire
    assert rest.endswith("zwölf\r\n".encode())


@pytest.mark.parametrize(
    "message", [Outgoing("a b", b""), Outgoing("a", b"", "", {"K": "v\r\nX: y"}), Outgoing("a", b"", "", {"K\n": "v"})]
)
def test_nothing_can_break_out_of_its_line(message: Outgoing) -> None:
    with pytest.raises(nats.errors.Error):
        staged([message], "batch")
