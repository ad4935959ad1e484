"""What the Kubernetes driver hears from its API server, in our own words: known without lightkube."""

from __future__ import annotations

from typing import Any

import msgspec

from scaler.drivers.port import DriverRefused
from schemas.errors import PenstockError

FIELD_MANAGER = "penstock-scaler"


class Conflict(PenstockError):
    """Somebody wrote between our look and our write."""


class Gone(PenstockError):
    """What we wanted to write to is not there any more; or a watch must begin with a list again."""


class Missing(DriverRefused):
    """There is no such Deployment."""


class Sized(msgspec.Struct, frozen=True, kw_only=True):
    """A Deployment. `changed_by`: who wrote `replicas` last, where the server keeps track of that.

    `selector` is in lightkube's words.
    """

    name: str
    replicas: int
    version: str
    selector: dict[str, Any]
    hindrance: str = ""
    changed_by: str = ""
