"""One hand-out of a job by JetStream: what it says of itself, and the ways to answer it."""

from __future__ import annotations

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from infra.broker import Broker
from schemas import subjects
from schemas.errors import BusUnavailable


class Delivery:
    """A message of a READY stream. Every answer is safe to give twice; the broker takes the first."""

    __slots__ = ("_broker", "_msg", "count", "header_job_id", "pending", "seq", "stored_unix_ms", "subject")

    def __init__(self, msg: Msg, broker: Broker) -> None:
        self._msg = msg
        self._broker = broker
        self.subject = subjects.parse_ready(msg.subject)
        # $JS.ACK.<stream>.<durable>.<deliveries>.<seq>.<durable seq>.<ns>.<pending>, or with <domain>.<account> before
        # the stream and one more token at the end.
        tokens = msg.reply.split(".")
        first = 2 if len(tokens) == 9 else 4
        self.count = int(tokens[first + 2])
        self.seq = int(tokens[first + 3])
        self.stored_unix_ms = int(tokens[first + 5]) // 1_000_000
        # What the durable has not handed out yet.
        self.pending = int(tokens[first + 6])
        self.header_job_id = (msg.headers or {}).get(subjects.HEADER_JOB, "")

    @property
    def payload(self) -> bytes:
        return self._msg.data

    @property
    def reply(self) -> str:
        """Where answers go; whoever knows it may give them."""
        return self._msg.reply

    async def ack(self) -> None:
        """Not waited for: an ack that is lost costs a redelivery, which finds the stored result.

        Raises:
            BusUnavailable: the connection is gone and its buffer is full.
        """
        await self._publish(b"+ACK")

    async def give_back(self, delay_s: float = 0.0) -> None:
        """For any consumer to take, at once or after `delay_s`."""
        answer = b"-NAK" if delay_s <= 0 else b'-NAK {"delay": %d}' % int(delay_s * 1e9)
        await self._publish(answer)

    async def heartbeat(self) -> None:
        """Still at work: starts `ack_wait` again."""
        await self._publish(b"+WPI")

    async def _publish(self, answer: bytes) -> None:
        try:
            await self._broker.nc.publish(self._msg.reply, answer)
        except NatsError as error:
            raise BusUnavailable("the broker is away and its buffer is full") from error
