"""Whether the input of a batch is in order, line by line, before any of it is submitted. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from producer.batch.ledger import Ledger, Rejected
from producer.gateway.batches.split import Line
from schemas.batch_line import BatchLine
from schemas.errors import PenstockError
from schemas.job import Endpoint
from schemas.openai_batches import ContentError

ERRORS_MAX = 100
EMBEDDING_INPUTS_MAX = 50_000

# The ledger's words where OpenAI has others.
_CODES = {"malformed_job": "invalid_request", "invalid_url": "url_mismatch"}

RouteOf = Callable[[str], str]


class _Body(msgspec.Struct):
    model: str | None = None


class _Input(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"")


_body_decoder = msgspec.json.Decoder(_Body)
_input_decoder = msgspec.json.Decoder(_Input)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class Survey:
    """Takes every line once. `route_of` gives the pool of a model, or raises why there is none."""

    def __init__(
        self,
        batch_id: str,
        endpoint: str,
        *,
        lines_max: int,
        mixed_models: bool,
        line_bytes_max: int,
        route_of: RouteOf,
    ) -> None:
        self._ledger = Ledger(batch_id)
        self._endpoint = endpoint
        self._lines_max = lines_max
        self._mixed_models = mixed_models
        self._line_bytes_max = line_bytes_max
        self._route_of = route_of
        self._inputs = 0
        self.total = 0
        self.errors: list[ContentError] = []
        self.pools: dict[str, str] = {}
        # Of the first line.
        self.model: str | None = None
        # Why no pool is known for a model: it may be there a moment later.
        self.unrouted: dict[str, tuple[int, PenstockError]] = {}

    @property
    def is_hopeless(self) -> bool:
        """Nothing more need be read."""
        return len(self.errors) >= ERRORS_MAX

    def take(self, line: Line) -> None:
        if line.is_too_long:
            self._err("invalid_json_line", f"line is longer than {self._line_bytes_max} bytes", line.number, "line")
            return
        decision = self._ledger.take(line.number, line.text)
        if decision is None:
            return
        self.total += 1
        if self.total > self._lines_max:
            if self.total == self._lines_max + 1:
                why = f"the input has more than {self._lines_max} requests (gateway.batch_lines_max)"
                self.errors.append(ContentError(code="too_many_tasks", message=why))
            return
        if isinstance(decision, Rejected):
            error = decision.error
            self._err(_CODES.get(error.code, error.code), error.message, line.number, error.param)
            return
        if decision.line.url != self._endpoint:
            what = f"url {decision.line.url!r} is not the batch's endpoint {self._endpoint}"
            self._err("url_mismatch", what, line.number, "url")
            return
        self._take_model(decision.line, line.number)
        if self._endpoint == Endpoint.EMBEDDINGS.value:
            self._take_inputs(decision.line, line.number)

    def route_again(self) -> None:
        unrouted, self.unrouted = self.unrouted, {}
        for model, (number, _) in unrouted.items():
            self._route(model, number)

    def give_up(self) -> None:
        """What has no pool by now is an error of its first line."""
        for number, error in self.unrouted.values():
            self._err(error.code, error.message, number, "body.model")

    def finish(self) -> None:
        if not self.total:
            self.errors.append(ContentError(code="empty_file", message="the input file has no requests"))

    def _take_model(self, line: BatchLine, number: int) -> None:
        model = model_of(line)
        if self.model is None:
            self.model = model
        elif model != self.model and not self._mixed_models:
            what = f"model {model!r} is not that of the first request, {self.model!r} (gateway.batch_models_mixed)"
            self._err("model_mismatch", what, number, "body.model")
            return
        if model not in self.pools and model not in self.unrouted:
            self._route(model, number)

    def _route(self, model: str, number: int) -> None:
        try:
            self.pools[model] = self._route_of(model)
        except PenstockError as error:
            self.unrouted[model] = (number, error)

    def _take_inputs(self, line: BatchLine, number: int) -> None:
        before = self._inputs
        self._inputs += inputs_in(line)
        if before <= EMBEDDING_INPUTS_MAX < self._inputs:
            what = f"more than {EMBEDDING_INPUTS_MAX} embedding inputs up to this line"
            self._err("too_many_tasks", what, number, "body.input")

    def _err(self, code: str, message: str, line: int, param: str | None) -> None:
        if not self.is_hopeless:
            self.errors.append(ContentError(code=code, message=message, line=line, param=param))


def model_of(line: BatchLine) -> str:
    """Empty where the body names none, or is none: what is wrong with a body its own answer says."""
    try:
        return _body_decoder.decode(line.body).model or ""
    except (msgspec.DecodeError, RecursionError):
        return ""


def inputs_in(line: BatchLine) -> int:
    """How many texts an embedding request has; a list of numbers is one."""
    try:
        raw = _input_decoder.decode(line.body).input
        if not raw or bytes(raw)[:1] != b"[":
            return 1
        items = _list_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return 1
    return 1 if not items or bytes(items[0])[:1].isdigit() else len(items)
