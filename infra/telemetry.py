"""Every metric penstock exports, listed once. vLLM's own (`vllm:…`) are read beside them, never renamed.

Labels stay few: pool, lane, verdict, state, kind. Never a job, a tenant or a consumer.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800, 86400)

JOBS = Counter("penstock_jobs_total", "Jobs that ended, by how.", ["pool", "lane", "verdict"])
JOB_SECONDS = Histogram("penstock_job_seconds", "Start to stored result.", ["pool", "lane"], buckets=_SECONDS)
QUEUE_SECONDS = Histogram("penstock_queue_seconds", "Submit to start.", ["pool", "lane"], buckets=_SECONDS)
ENGINE_TTFT_SECONDS = Histogram(
    "penstock_engine_ttft_seconds", "Start to first token.", ["pool", "lane"], buckets=_SECONDS
)
TOKENS = Counter("penstock_tokens_total", "Tokens of ended jobs.", ["pool", "kind"])
KV_BLOCKS = Gauge("penstock_kv_blocks", "KV-cache blocks: total and free.", ["pool", "state"])
JOBS_RUNNING = Gauge("penstock_jobs_running", "Jobs the engine holds.", ["pool"])
JOBS_AT_DOOR = Gauge("penstock_jobs_at_door", "Jobs pulled and waiting for KV cache.", ["pool"])
REDELIVERIES = Counter("penstock_redeliveries_total", "Jobs that came again.", ["pool"])
RELEASED = Counter("penstock_released_total", "Jobs handed back uncharged.", ["pool"])
DISPLACED = Counter(
    "penstock_displaced_total", "Running jobs stopped for an interactive one, to start again.", ["pool", "lane"]
)
FRAMES = Counter("penstock_frames_total", "Token frames sent.", ["pool"])
FRAMES_DROPPED = Counter("penstock_frames_dropped_total", "Token frames nobody could be sent.", ["pool"])
BROKER_RECONNECTS = Counter("penstock_broker_reconnects_total", "Connections made again.")
GATEWAY_REQUESTS = Counter(
    "penstock_gateway_requests_total", "HTTP requests, by route and status.", ["route", "status"]
)
GATEWAY_SECONDS = Histogram(
    "penstock_gateway_request_seconds", "Request to the end of its answer.", ["route"], buckets=_SECONDS
)
GATEWAY_TTFT_SECONDS = Histogram(
    "penstock_gateway_ttft_seconds", "Request to the first event of its stream.", ["pool"], buckets=_SECONDS
)
GATEWAY_STREAMS = Gauge("penstock_gateway_streams", "Streams that are open.")
GATEWAY_EVENTS = Counter("penstock_gateway_events_total", "Server-sent events of engines' tokens.")
GATEWAY_REFUSED = Counter("penstock_gateway_refused_total", "Requests refused, by why.", ["code"])
GATEWAY_POOL_OPEN = Gauge("penstock_gateway_breaker_open", "1: the pool's breaker is open.", ["pool"])
BATCHES = Gauge("penstock_batches_running", "OpenAI batches that this gateway runs.")
BATCH_LINES = Counter("penstock_batch_lines_total", "Lines of batches that were answered and stored.", ["verdict"])
WEBHOOKS = Counter("penstock_webhooks_total", "Tries to tell an endpoint an event, by what became of it.", ["verdict"])
BACKLOG_JOBS = Gauge("penstock_backlog_jobs", "Jobs that wait, by lane; held ones apart.", ["pool", "lane"])
BACKLOG_TOKENS = Gauge("penstock_backlog_tokens", "Estimated tokens that wait.", ["pool", "lane"])
READY_JOBS = Gauge("penstock_ready_jobs", "Jobs in READY, running ones included.", ["pool"])
MOVED = Counter("penstock_moved_total", "Jobs moved from BACKLOG to READY.", ["pool"])
ENDED_WAITING = Counter("penstock_ended_waiting_total", "Jobs that ended before they started.", ["pool", "verdict"])
ETA_RATIO = Histogram(
    "penstock_eta_ratio",
    "Actual wait over the wait forecast at submit.",
    ["pool"],
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10),
)
DISPATCHER_LEADS = Gauge("penstock_dispatcher_leads", "1 where this process orders the pool's backlog.", ["pool"])
SCALER_LEADS = Gauge("penstock_scaler_leads", "1 where this process scales.")
SCALER_REPLICAS = Gauge("penstock_scaler_replicas", "Consumers as the driver sees them.", ["pool", "state"])
SCALER_WANTED = Gauge("penstock_scaler_wanted", "Consumers the policies want.", ["pool"])
SCALER_TARGET = Gauge("penstock_scaler_target", "Consumers that guard and shares left of it.", ["pool"])
SCALER_CHANGES = Counter("penstock_scaler_changes_total", "Consumers started or stopped.", ["pool", "action"])
SCALER_AGE_SECONDS = Gauge("penstock_scaler_observation_age_seconds", "Of the oldest thing looked at.", ["pool"])
SCALER_CRASH_LOOPING = Gauge("penstock_scaler_crash_looping", "Consumers that die again and again.", ["pool"])
SCALER_COLD_START_SECONDS = Gauge(
    "penstock_scaler_cold_start_seconds", "From asked for to heard, as measured.", ["pool", "quantile"]
)
