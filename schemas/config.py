"""The one configuration tree: defaults < TOML file < `PENSTOCK__SECTION__KEY` < `--section.key`.

Pure: `load` is given the texts and the mappings; only a `main()` reads files and the environment. Every mistake is a
`ConfigError` that names the key, before anything connects.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec

from schemas.driver_config import DockerSection, KubernetesSection
from schemas.errors import ConfigError
from schemas.scaler_config import GuardSection, ScaledPoolSection, ScalerSection, ScalingWindowSection
from schemas.section import Name, Port, Positive, Seconds, Section
from schemas.webhooks_config import WebhooksSection

ENV_PREFIX = "PENSTOCK__"

EngineValue = bool | int | float | str | list[Any] | dict[str, Any] | None


class BrokerSection(Section, frozen=True, kw_only=True):
    """How to reach NATS."""

    # Empty: the embedded server that `penstock up` left running in `data_dir`.
    url: str = ""
    credentials_file: str = ""
    nkey_seed_file: str = ""
    tls_ca_file: str = ""
    # A cluster wants 3; every stream follows.
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    connect_timeout_s: Seconds = 5.0
    # How long a publish may wait for its ack over reconnects and leader elections (measured: 5 to 7 s).
    publish_timeout_s: Seconds = 30.0
    results_kept_s: Seconds = 7 * 24 * 3600.0
    replies_kept_s: Seconds = 900.0
    # NATS's default of 1 MiB is too small for long contexts; clusters must set `max_payload` to at least this.
    payload_bytes_max: Positive = 8 * 1024 * 1024


class ClientSection(Section, frozen=True, kw_only=True):
    """What a producer assumes when the caller does not say."""

    pool: Name = "default"
    tenant: Name = "default"
    body_bytes_max: Positive = 1024 * 1024
    # Events buffered for a reader that is slower than its stream; then the oldest text deltas are joined.
    stream_events_max: Positive = 1024
    # A waiter that heard nothing for this long reads the results stream itself.
    recheck_s: Seconds = 5.0


class ConsumerSection(Section, frozen=True, kw_only=True):
    """One consumer process."""

    pool: Name = "default"
    # Empty: host name and process id.
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,64}$")] = ""
    # SIGTERM: what runs may finish within this; the rest is handed back uncharged.
    grace_s: Seconds = 30.0
    heartbeat_s: Seconds = 10.0
    ack_wait_s: Seconds = 30.0
    # Jobs pulled but not yet admitted: they hide the round trip of a pull.
    door_max: Positive = 4
    # A job that waits at the door longer than this goes back for another consumer to take.
    door_wait_s: Seconds = 10.0
    # 0: as many jobs as the KV cache will hold. N: always N jobs, all given to the engine at once whatever its cache
    # says, as queues with a fixed prefetch do; for comparison, and for engines that cannot say what they hold.
    prefetch: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Near the end of a backlog, leave jobs to clearly faster consumers of the pool, and hand over what runs too long.
    share_tail: bool = True
    # While interactive jobs run, others start only if a step is expected to take no longer than this. 0: no target.
    itl_target_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    # While interactive jobs come, other lanes run only as much as lets the slowest of a hundred interactive jobs wait
    # so many times as long for its first token as without them. 0: no protection.
    interactive_slowdown_max: Annotated[float, msgspec.Meta(ge=0)] = 1.4
    # Upper bound of jobs running at once; the KV cache usually binds first.
    jobs_max: Positive = 1024
    # Engine deaths under a job before it runs alone, and starts before it ends `dead`.
    attempts_shared: Positive = 2
    attempts_max: Positive = 8
    # A frame is sent at most this often while many jobs stream.
    frame_interval_s: Seconds = 0.0
    body_bytes_max: Positive = 1024 * 1024
    health_port: Port = 0
    health_host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if self.heartbeat_s * 2 > self.ack_wait_s:
            raise ValueError("ack_wait_s must cover two heartbeats")
        if 0 < self.interactive_slowdown_max < 1:
            raise ValueError("interactive_slowdown_max is 0, or at least 1: nothing gets faster by company")
        if self.attempts_shared > self.attempts_max:
            raise ValueError("attempts_max must not be below attempts_shared")


class WindowSection(Section, frozen=True, kw_only=True):
    """An off-peak window: opens whenever `cron` says, in time zone `tz`, for `hours`."""

    cron: str
    tz: str = "UTC"
    hours: Annotated[float, msgspec.Meta(gt=0, le=168)]


class DispatcherSection(Section, frozen=True, kw_only=True):
    """One dispatcher process; it serves the pools that exist, or only those named."""

    pools: list[Name] = []
    # Empty: host name and process id.
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,64}$")] = ""
    # Shares of tenants; others have 1. `penstock tenants --weight NAME=3` changes them live.
    weights: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}
    windows: dict[str, WindowSection] = {}
    # Jobs a tenant may have in READY in the interactive lane before further ones wait in the backlog.
    interactive_in_ready_max: Positive = 256
    # A leader that was not heard for this long is replaced.
    lease_s: Annotated[float, msgspec.Meta(ge=0.5)] = 3.0
    # READY holds what runs, what consumers have room for, and so many seconds of work.
    ready_ahead_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    # Compute identical deterministic requests once: never, within one tenant, or across all of them.
    coalesce: Literal["off", "tenant", "all"] = "tenant"
    health_port: Port = 0
    health_host: str = "127.0.0.1"


class LimitsSection(Section, frozen=True, kw_only=True):
    """What one tenant may ask of all gateways together. 0: no limit."""

    requests_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Prompt and answer; estimated when a request comes, corrected when it is done.
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Requests somebody holds the line for.
    concurrency: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Jobs that wait or run, however they were submitted.
    jobs_queued: Annotated[int, msgspec.Meta(ge=0)] = 0


class GatewaySection(Section, frozen=True, kw_only=True):
    """One HTTP front door; any number may stand behind a load balancer."""

    host: str = "127.0.0.1"
    port: Port = 8000
    # Whether callers need a key (`penstock keys create`). Without, everybody is `client.tenant`: on loopback only.
    api_keys: bool = False
    # Web pages of these origins may call; "*" is all. Empty: none but our own.
    cors_origins: list[str] = []
    # Whose line is held while a job waits: where the body names no service_tier.
    lane: Literal["interactive", "standard", "bulk"] = "interactive"
    # Pools of models that no consumer may serve just now, because they start on demand.
    models: dict[str, Name] = {}
    # Takes requests for a pool without consumers: something starts them on demand.
    wait_for_consumers: bool = False
    body_bytes_max: Positive = 1024 * 1024
    # Estimated from the prompt's length. 0: as much as the model takes.
    prompt_tokens_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    # A request whose caller waits is given up, and its job ended, after so long.
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    # A stream that has nothing to say says so this often; until then the status code waits for what comes of the job.
    comment_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    # Jobs in one request to /v1/jobs.
    jobs_per_request: Positive = 1000
    # Where files lie: a folder, s3://, gs:// or az://. Empty: `files` in data_dir, which replicas on several machines
    # cannot share.
    files_url: str = ""
    file_bytes_max: Positive = 200 * 1024 * 1024
    # Files of batches whose owner does not say for how long, and records of ended batches.
    files_kept_s: Annotated[float, msgspec.Meta(ge=3600)] = 30 * 24 * 3600.0
    batch_lines_max: Positive = 50_000
    # OpenAI fails a batch whose lines name different models; here each line may go to its model's pool.
    batch_models_mixed: bool = False
    # The batches of a gateway that was not heard for this long go on at another.
    batch_lease_s: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    # On SIGTERM: what is being answered may finish within this.
    grace_s: Seconds = 30.0
    limits: LimitsSection = LimitsSection()
    # By tenant, instead of `limits`.
    tenants: dict[str, LimitsSection] = {}
    webhooks: WebhooksSection = WebhooksSection()
    # A pool is closed for a while when this share of its latest answers (at least so many) were faults of its own.
    breaker_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    breaker_answers: Positive = 10
    breaker_open_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0

    def __post_init__(self) -> None:
        if not self.api_keys and not is_loopback(self.host):
            raise ValueError("api_keys must be true where host is not loopback: anybody could call")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there. `0.0.0.0` and the empty name are everybody."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class EngineSection(Section, frozen=True, kw_only=True):
    """Which engine, which model, and everything the engine itself understands.

    Any other key under `engine` (`--engine.tensor_parallel_size 4`) lands in `arguments` unread: vLLM's own parser, or
    the simulated engine's settings, check it.
    """

    kind: Literal["vllm", "simulated"] = "vllm"
    # `tiny` is a model of a few MB that penstock makes itself; anything else is what vLLM's --model takes.
    model: str = "tiny"
    arguments: dict[str, EngineValue] = {}


class LogSection(Section, frozen=True, kw_only=True):
    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section, frozen=True, kw_only=True):
    """The whole tree. Functions receive the section they need, never this."""

    # Empty: $XDG_DATA_HOME/penstock. Broker data, the tiny model, and where the embedded broker says it listens.
    data_dir: str = ""
    broker: BrokerSection = BrokerSection()
    client: ClientSection = ClientSection()
    consumer: ConsumerSection = ConsumerSection()
    engine: EngineSection = EngineSection()
    dispatcher: DispatcherSection = DispatcherSection()
    gateway: GatewaySection = GatewaySection()
    scaler: ScalerSection = ScalerSection()
    log: LogSection = LogSection()


def load(toml_text: str, environment: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """The effective tree.

    `overrides` maps dotted keys to texts (`{"consumer.grace_s": "20"}`), as a command line gives them.

    Raises:
        ConfigError: unknown key, wrong type, broken relation, or TOML that does not parse; names the key.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file: {error}") from error
    for name, text in sorted(environment.items()):
        if name.startswith(ENV_PREFIX):
            _put(tree, name.removeprefix(ENV_PREFIX).lower().split("__"), text, name)
    for key, text in overrides.items():
        _put(tree, key.replace("-", "_").split("."), text, f"--{key}")
    _gather_engine_arguments(tree)
    try:
        return msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error))) from error


def masked(config: Config) -> dict[str, Any]:
    """The tree for printing; a URL's password is hidden."""
    tree = cast("dict[str, Any]", msgspec.to_builtins(config))
    scheme, separator, rest = tree["broker"]["url"].partition("://")
    if "@" in rest:
        tree["broker"]["url"] = f"{scheme}{separator}***@{rest.rpartition('@')[2]}"
    return tree


def _put(tree: dict[str, Any], path: list[str], text: str, source: str) -> None:
    node = tree
    for part in path[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{source}: {part} is a value, not a section")
        node = cast("dict[str, Any]", child)
    node[path[-1]] = _listed(text)


def _listed(text: str) -> Any:
    """A list or table spelled as JSON; any other text as it is, for its setting's type to judge."""
    if text.startswith(("[", "{")):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(text)
    return text


def _gather_engine_arguments(tree: dict[str, Any]) -> None:
    """Moves what `EngineSection` does not know into `arguments`, typed where it came as text."""
    engine = tree.get("engine")
    if not isinstance(engine, dict):
        return
    engine = cast("dict[str, Any]", engine)
    known = {"kind", "model", "arguments"}
    arguments: dict[str, Any] = dict(engine.pop("arguments", {}))
    for key in [key for key in engine if key not in known]:
        arguments[key] = engine.pop(key)
    engine["arguments"] = {key: _typed(value) for key, value in arguments.items()}


def _typed(value: Any) -> Any:
    """A text from the environment or command line as the JSON value it spells, else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return {"true": True, "false": False}.get(value.lower(), value)


def _explained(message: str) -> str:
    """Msgspec's message with the nearest known key, when a key is unknown."""
    if "unknown field" not in message:
        return message
    wrong = message.split("`")[1]
    sections = (
        Config,
        BrokerSection,
        ClientSection,
        ConsumerSection,
        DispatcherSection,
        WindowSection,
        GatewaySection,
        LimitsSection,
        WebhooksSection,
        ScalerSection,
        ScaledPoolSection,
        ScalingWindowSection,
        GuardSection,
        KubernetesSection,
        DockerSection,
        EngineSection,
        LogSection,
    )
    known = [field for section in sections for field in section.__struct_fields__]
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"{message}; did you mean `{near[0]}`?" if near else message
