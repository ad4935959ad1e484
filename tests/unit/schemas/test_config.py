from __future__ import annotations

import pytest

from schemas.config import Config, load, masked
from schemas.errors import ConfigError


def test_without_anything_the_defaults_hold() -> None:
    assert load("", {}, {}) == Config()


def test_the_command_line_beats_the_environment_beats_the_file() -> None:
    toml = "[consumer]\ngrace_s = 1\ndoor_max = 1\njobs_max = 1"
    environment = {"PENSTOCK__CONSUMER__GRACE_S": "2", "PENSTOCK__CONSUMER__DOOR_MAX": "2", "HOME": "/nowhere"}

    cfg = load(toml, environment, {"consumer.grace_s": "3"})

    assert (cfg.consumer.grace_s, cfg.consumer.door_max, cfg.consumer.jobs_max) == (3.0, 2, 1)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[consumer]\ngrace = 1", "grace"),
        ("[consumer]\ngarce_s = 1", "did you mean `grace_s`"),
        ("[consumre]\ngrace_s = 1", "did you mean `consumer`"),
        ('[consumer]\ngrace_s = "soon"', r"\$\.consumer\.grace_s"),
        ("[consumer]\ngrace_s = -1", r"\$\.consumer\.grace_s"),
        ('[consumer]\npool = "a.b"', r"\$\.consumer\.pool"),
        ("[consumer]\nack_wait_s = 5", "two heartbeats"),
        ("[broker]\nreplicas = 9", r"\$\.broker\.replicas"),
        ('[engine]\nkind = "magic"', r"\$\.engine\.kind"),
        ("consumer = 1", r"\$\.consumer"),
        ("[consumer", "configuration file"),
        ("engine = 1", r"\$\.engine"),
    ],
)
def test_a_mistake_in_the_file_is_named(toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(toml, {}, {})


def test_a_mistake_in_the_environment_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean `url`"):
        load("", {"PENSTOCK__BROKER__ULR": "nats://x"}, {})


def test_a_value_where_a_section_belongs_is_named() -> None:
    with pytest.raises(ConfigError, match="PENSTOCK__DATA_DIR__X"):
        load('data_dir = "/d"', {"PENSTOCK__DATA_DIR__X": "1"}, {})


def test_any_engine_argument_passes_typed() -> None:
    cfg = load(
        "[engine]\nmax_model_len = 4096",
        {"PENSTOCK__ENGINE__ENFORCE_EAGER": "True"},
        {
            "engine.tensor-parallel-size": "4",
            "engine.quantization": "awq",
            "engine.gpu_memory_utilization": "0.85",
            "engine.lora_modules": '[{"name": "a"}]',
        },
    )

    assert cfg.engine.arguments == {
        "max_model_len": 4096,
        "enforce_eager": True,
        "tensor_parallel_size": 4,
        "quantization": "awq",
        "gpu_memory_utilization": 0.85,
        "lora_modules": [{"name": "a"}],
    }


def test_a_model_named_by_a_number_stays_a_text() -> None:
    assert load("", {}, {"engine.model": "7"}).engine.model == "7"


def test_a_password_in_the_url_is_never_printed() -> None:
    tree = masked(load("", {}, {"broker.url": "nats://me:secret@host:4222"}))

    assert tree["broker"]["url"] == "nats://***@host:4222"


def test_no_password_of_a_list_of_urls_is_printed() -> None:
    tree = masked(load("", {}, {"broker.url": "nats://me:secret@one:4222,nats://me:secret@two:4222"}))

    assert "secret" not in str(tree)


def test_a_list_or_a_table_is_spelled_as_json() -> None:
    cfg = load("", {"PENSTOCK__DISPATCHER__POOLS": '["big"]'}, {"dispatcher.weights": '{"a": 3}'})

    assert cfg.dispatcher.pools == ["big"]
    assert cfg.dispatcher.weights == {"a": 3.0}
    with pytest.raises(ConfigError, match="dispatcher.pools"):
        load("", {}, {"dispatcher.pools": "[big"})
