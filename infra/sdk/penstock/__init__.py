"""`import penstock`: what a program that puts in jobs needs.

```
import penstock

with penstock.SyncClient() as client:
    print(client.submit({"prompt": "Hello"}, endpoint="/v1/completions").result().body)
```
"""

from producer.client import Client
from producer.events import Event, JobFailed, Restarted
from producer.handle import Handle, Stream
from producer.listing import JobInfo, PoolInfo
from producer.pouring import Receipt
from producer.request import Request
from producer.sync import SyncClient, SyncHandle, SyncStream
from schemas.config import Config
from schemas.dispatch import Promise, Quote, Snapshot
from schemas.errors import (
    BodyTooLarge,
    BusUnavailable,
    ConfigError,
    DeadlineImpossible,
    DeadlinePassed,
    DuplicateJob,
    JobMalformed,
    JobRejected,
    PenstockError,
    ResultPending,
    UnknownEndpoint,
    UnknownPool,
)
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.job import Endpoint
from schemas.result import ErrorDetail, Result, Status, Timing, Usage
from schemas.subjects import Lane

__all__ = [
    "BodyTooLarge",
    "BusUnavailable",
    "Chunk",
    "Client",
    "Config",
    "ConfigError",
    "DeadlineImpossible",
    "DeadlinePassed",
    "Delta",
    "DuplicateJob",
    "Endpoint",
    "ErrorDetail",
    "Event",
    "Finished",
    "Handle",
    "JobFailed",
    "JobInfo",
    "JobMalformed",
    "JobRejected",
    "Lane",
    "PenstockError",
    "PoolInfo",
    "Promise",
    "Quote",
    "Receipt",
    "Request",
    "Restarted",
    "Result",
    "ResultPending",
    "Snapshot",
    "Started",
    "Status",
    "Stream",
    "SyncClient",
    "SyncHandle",
    "SyncStream",
    "Timing",
    "UnknownEndpoint",
    "UnknownPool",
    "Usage",
]
