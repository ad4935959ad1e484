"""Reads results for waiters who heard nothing: after a reconnect, after silence, and where a frame said "go and look".

Frames and announcements travel at most once; this is what makes a wait certain. One task a client.
"""

from __future__ import annotations

import asyncio
import contextlib

from infra.broker import Broker
from producer import stored
from producer.feed import Feed
from producer.inbox import Inbox
from schemas.errors import BusUnavailable


class Watch:
    def __init__(self, recheck_s: float) -> None:
        self._recheck_s = max(0.05, recheck_s)
        self._due: set[Feed] = set()
        self._is_all_due = False
        self._wake = asyncio.Event()

    def ask(self, feed: Feed) -> None:
        """Looks for this one's result at once."""
        self._due.add(feed)
        self._wake.set()

    def ask_all(self) -> None:
        """After a reconnect: anything may have been missed."""
        self._is_all_due = True
        self._wake.set()

    async def run(self, broker: Broker, inbox: Inbox) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._recheck_s / 2):
                    await self._wake.wait()
            self._wake.clear()
            due = self._taken_due(inbox.feeds(), asyncio.get_running_loop().time())
            try:
                await self.check(broker, inbox, due)
                await inbox.drop_retired()
            except BusUnavailable:
                # The connection comes back by itself, and then asks for everybody.
                self._due.update(due)
                await asyncio.sleep(self._recheck_s / 2)

    async def check(self, broker: Broker, inbox: Inbox, feeds: list[Feed]) -> None:
        """
        Raises:
            BusUnavailable: the broker did not answer.
        """
        by_subject = {feed.address.result_subject: feed for feed in feeds if not feed.is_finished}
        if not by_subject:
            return
        now = asyncio.get_running_loop().time()
        for feed in by_subject.values():
            feed.heard_at = now
        for subject, result in (await stored.results(broker, list(by_subject))).items():
            feed = by_subject[subject]
            feed.finish(result)
            inbox.forget(feed)

    def _taken_due(self, feeds: list[Feed], now: float) -> list[Feed]:
        is_all_due, self._is_all_due = self._is_all_due, False
        asked, self._due = self._due, set()
        silent = [feed for feed in feeds if feed.waiters and (is_all_due or now - feed.heard_at >= self._recheck_s)]
        return [*asked, *(feed for feed in silent if feed not in asked)]
