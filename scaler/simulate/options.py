"""Options that `simulate` and `plan` share: the replica, its limits, and how a trace is read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import msgspec

from scaler.simulate.perturb import thinned
from scaler.simulate.service import ServiceModel, measured
from scaler.simulate.trace_file import read_trace
from scaler.simulate.workload import LaneRule, Trace
from schemas.errors import ConfigError


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is below 0, or no number")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return value


# argparse names the type in its message where a text is no number at all.
positive.__name__ = not_negative.__name__ = share.__name__ = "number"
count.__name__ = "whole number"


def add_replica(parser: argparse.ArgumentParser) -> None:
    model = ServiceModel()
    group = parser.add_argument_group("a consumer, as measured (`penstock bench throughput`); assumed where not given")

    def option(name: str, read: Callable[[str], float], text: str) -> None:
        group.add_argument(name, type=read, default=0, metavar="N", help=text)

    option("--prefill-tokens-per-s", positive, f"prompts it reads, alone ({1 / model.prompt_token_s:,.0f})")
    option("--decode-tokens-per-s", positive, f"tokens it writes with a full batch ({1 / model.output_token_s:,.0f})")
    option("--kv-tokens", count, f"tokens its cache holds ({model.kv_tokens:,})")
    option("--sequences", count, f"requests it runs at once ({model.sequences_max})")
    group.add_argument("--replicas-max", type=count, default=40, metavar="N", help="of them at most (40)")


def add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lanes", default="", metavar="RULES", help="name:window seconds:share,… of the jobs")
    parser.add_argument("--time-unit", default="", metavar="UNIT", help="of plain numbers in a trace: s, ms, us, ns")
    parser.add_argument("--thin", type=share, default=1.0, metavar="SHARE", help="keep only this share of the requests")


def is_measured(options: argparse.Namespace) -> bool:
    return bool(options.prefill_tokens_per_s or options.decode_tokens_per_s)


def model_of(options: argparse.Namespace) -> ServiceModel:
    model = ServiceModel()
    if options.kv_tokens:
        model = msgspec.structs.replace(model, kv_tokens=options.kv_tokens)
    if options.sequences:
        model = msgspec.structs.replace(model, sequences_max=options.sequences)
    if is_measured(options):
        prefill = options.prefill_tokens_per_s or 1 / model.prompt_token_s
        model = measured(prefill, options.decode_tokens_per_s or 1 / model.output_token_s, model)
    return model


def trace_of(path: str, options: argparse.Namespace) -> Trace:
    """
    Raises:
        ConfigError: it is no trace, or nothing is left of it.
    """
    trace = read_trace(path, options.time_unit)
    return trace if options.thin == 1 else thinned(trace, options.thin)


def lanes_of(text: str) -> tuple[LaneRule, ...] | None:
    """`interactive:30:0.3,batch:3600:0.7`: name, window in seconds, share of the jobs. Empty: the usual ones.

    Raises:
        ConfigError: it is not that, or the shares do not add up to 1.
    """
    if not text:
        return None
    lanes: list[LaneRule] = []
    for part in text.split(","):
        try:
            name, window, part_share = part.split(":")
            lanes.append(LaneRule(name=name, window_s=float(window), share=float(part_share)))
        except ValueError as error:
            raise ConfigError(f"--lanes {part!r} is not name:window seconds:share", param="--lanes") from error
        if not name or not 0 < lanes[-1].window_s < math.inf or not 0 < lanes[-1].share <= 1:
            message = f"--lanes {part!r}: a window is above 0 seconds, a share above 0 and up to 1"
            raise ConfigError(message, param="--lanes")
    total = sum(lane.share for lane in lanes)
    if abs(total - 1) > 0.001:
        raise ConfigError(f"--lanes: shares add up to {total:g}, not 1", param="--lanes")
    if len({lane.name for lane in lanes}) < len(lanes):
        raise ConfigError("--lanes: a name comes twice; give each lane its own", param="--lanes")
    return tuple(msgspec.structs.replace(lane, share=lane.share / total) for lane in lanes)
