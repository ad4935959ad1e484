"""Events of batches and responses."""

import msgspec

from schemas import subjects
from schemas.event import KINDS, EventMessage, event_of


def test_an_event_told_twice_is_the_same_event():
    first, again = (event_of("batch.completed", "batch_1", 1_700_000_000) for _ in range(2))

    assert first == again
    assert msgspec.json.decode(msgspec.json.encode(first), type=EventMessage) == first


def test_every_kind_has_a_subject_of_its_own_below_its_tenant():
    found = {subjects.event("ann", kind) for kind in KINDS}

    assert len(found) == len(KINDS)
    assert all(subject.startswith(subjects.events_of_tenant("ann").removesuffix(">")) for subject in found)
