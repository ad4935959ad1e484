"""The chart, the compose file, the servers' settings: what they say fits together, and the programs accept it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import overrides_of
from schemas.config import BrokerSection, Config, load
from schemas.driver_config import KubernetesSection
from tests.support.nats_conf import running_nats

INFRA = Path(__file__).parents[3] / "infra"
CHART = INFRA / "helm" / "penstock"
# Before Kubernetes kills it, a consumer has its own grace and so long to say goodbye.
GOODBYE_S = 10

POOLS = [
    {"default": {"model": "Qwen/Qwen2.5-7B-Instruct"}},
    {"small": {"model": "tiny", "graceSeconds": 0}, "big-70b": {"model": "m/big", "graceSeconds": 86400, "minimum": 2}},
]


def rendered(**values: Any) -> list[dict[str, Any]]:
    helm = pytest.importorskip("helm_python", reason="Helm is not here: uv pip install --group deploy")
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="penstock", namespace="penstock")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents if one["kind"] == kind}


def containers(documents: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Each container of a Deployment, with all of its environment."""
    settings = of_kind(documents, "ConfigMap")["penstock"]["data"]
    for deployment in of_kind(documents, "Deployment").values():
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            yield container, settings | {one["name"]: one.get("value", "pod-name") for one in container["env"]}


def config_of(environment: dict[str, str], arguments: list[str]) -> Config:
    if "scaler" not in Config.__struct_fields__:
        environment = {name: text for name, text in environment.items() if "__SCALER__" not in name}
    return load("", environment, overrides_of(arguments))


# -- the chart


def test_the_chart_lints_without_a_warning() -> None:
    helm = pytest.importorskip("helm_python", reason="Helm is not here: uv pip install --group deploy")

    report = helm.lint(CHART, strict=True)

    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("version", ["1.25.0", "1.30.0", "1.37.0"])
@pytest.mark.parametrize("pools", POOLS)
def test_kubernetes_knows_every_field(version: str, pools: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="it is not here: uv pip install --group deploy")
    secret = {"secret": "nats", "secretKeys": ["nkey.seed", "user.creds", "ca.crt"]}
    documents = [
        *rendered(pools=pools, broker={"url": "tls://nats:4222", **secret}),
        *yaml.safe_load_all((INFRA / "kubernetes" / "scaler-role.yaml").read_text()),
    ]

    for document in documents:
        validator.validate(document, version, strict=True)

    assert {one["kind"] for one in documents} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    }


@pytest.mark.parametrize("pools", POOLS)
def test_kubernetes_waits_longer_than_any_program_s_grace(pools: dict[str, Any]) -> None:
    documents = rendered(pools=pools)

    for deployment in of_kind(documents, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (environment,) = [env for one, env in containers(documents) if one == container]
        cfg = config_of(environment, container["args"][1:])
        graces = {"consumer": cfg.consumer.grace_s, "gateway": cfg.gateway.grace_s}
        assert pod["terminationGracePeriodSeconds"] > graces.get(container["name"], 0) + GOODBYE_S


@pytest.mark.parametrize("pools", POOLS)
def test_the_programs_accept_what_the_chart_sets(pools: dict[str, Any]) -> None:
    documents = rendered(
        pools=pools, broker={"url": "nats://n:4222", "replicas": 1}, config={"dispatcher": {"coalesce": "off"}}
    )

    for container, environment in containers(documents):
        cfg = config_of(environment, container["args"][1:])
        assert (cfg.broker.url, cfg.broker.replicas, cfg.dispatcher.coalesce) == ("nats://n:4222", 1, "off")


def test_a_pod_s_name_is_its_consumer_s() -> None:
    (consumer,) = [one for one, _ in containers(rendered()) if one["name"] == "consumer"]

    (name,) = [one for one in consumer["env"] if one["name"] == "PENSTOCK__CONSUMER__NAME"]

    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


@pytest.mark.parametrize("pools", POOLS)
def test_the_scaler_finds_the_deployments_and_pods_that_the_chart_makes(pools: dict[str, Any]) -> None:
    documents = rendered(pools=pools)
    ((_, environment),) = [one for one in containers(documents) if one[0]["name"] == "scaler"]
    pattern = environment["PENSTOCK__SCALER__KUBERNETES__DEPLOYMENT"]
    (role,) = of_kind(documents, "Role").values()

    for pool in pools:
        deployment = of_kind(documents, "Deployment")[pattern.replace("{pool}", pool)]
        # Its size is the scaler's.
        assert "replicas" not in deployment["spec"]
        assert deployment["spec"]["template"]["metadata"]["labels"][KubernetesSection().label] == pool
        for rule in role["rules"][:2]:
            assert deployment["metadata"]["name"] in rule["resourceNames"]


def test_without_a_scaler_a_pool_has_its_minimum_and_nobody_may_resize_it() -> None:
    documents = rendered(pools=POOLS[1], scaler={"enabled": False})

    assert of_kind(documents, "Deployment")["penstock-consumer-big-70b"]["spec"]["replicas"] == 2
    assert of_kind(documents, "Role") == of_kind(documents, "ServiceAccount") == {}


def test_the_role_for_those_without_the_chart_is_the_chart_s() -> None:
    plain = list(yaml.safe_load_all((INFRA / "kubernetes" / "scaler-role.yaml").read_text()))
    documents = rendered()
    for document in documents:
        document["metadata"].pop("labels", None)

    for document in plain:
        assert of_kind(documents, document["kind"])["penstock-scaler"] == document


def test_only_the_scaler_gets_a_token() -> None:
    pods = {
        name: one["spec"]["template"]["spec"] for name, one in of_kind(rendered(pools=POOLS[1]), "Deployment").items()
    }

    holders = [name for name, pod in pods.items() if pod.get("automountServiceAccountToken", True)]

    assert holders == ["penstock-scaler"]


def test_labels_select_each_program_s_own_pods() -> None:
    deployments = of_kind(rendered(pools=POOLS[1]), "Deployment").values()

    for one, other in itertools.permutations(deployments, 2):
        selector = one["spec"]["selector"]["matchLabels"]
        assert selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        assert not selector.items() <= other["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"broker": {"url": "localhost:4222"}}, "url"),
        ({"pools": {"Big": {"model": "m"}}}, "Big"),
        ({"pools": {"p": {"modle": "m"}}}, "modle"),
        ({"pools": {"p": {"model": "m", "graceSeconds": -1}}}, "graceSeconds"),
        ({"gateway": {"apiKeys": False}}, "apiKeys"),
        ({"scaler": {"replica": 1}}, "replica"),
        ({"borker": {}}, "borker"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    helm = pytest.importorskip("helm_python", reason="Helm is not here: uv pip install --group deploy")
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmValuesError, match=named):
        chart.validate_schema(chart.merge_values(values))


# -- compose


def composed() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())


def test_the_compose_file_has_every_program_and_they_accept_its_settings() -> None:
    services = composed()["services"]

    assert set(services) == {"nats", "gateway", "dispatcher", "consumer", "scaler"}
    for name in set(services) - {"nats"}:
        # Compose fills in the default where the variable is not set.
        environment = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text) for key, text in services[name]["environment"].items()
        }
        cfg = config_of(environment, [])
        assert cfg.broker == BrokerSection(url="nats://nats:4222", replicas=1)
        assert services[name]["command"] == [name]


def test_docker_waits_longer_than_the_consumer_s_grace() -> None:
    consumer = composed()["services"]["consumer"]

    cfg = config_of(consumer["environment"] | {"PENSTOCK__ENGINE__MODEL": "tiny"}, [])

    assert int(consumer["stop_grace_period"].removesuffix("s")) > cfg.consumer.grace_s + GOODBYE_S


def test_what_the_compose_file_and_the_image_mention_is_there() -> None:
    compose = composed()
    folder = INFRA / "compose"
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (folder / source).exists(), source
    build = compose["services"]["gateway"]["build"]
    root = (folder / build["context"]).resolve()
    dockerfile = (root / build["dockerfile"]).read_text()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in copied.split():
            assert (root / source).exists(), source


# -- nats


def test_a_single_server_syncs_each_write_and_takes_large_messages(tmp_path: Path) -> None:
    with running_nats(INFRA / "nats" / "single.conf", tmp_path) as monitor:
        server, jetstream = monitor("varz"), monitor("jsz?config=1")

    assert server["max_payload"] >= BrokerSection().payload_bytes_max
    assert jetstream["config"]["sync_always"] is True


def test_three_servers_are_configured_by_their_environment(tmp_path: Path) -> None:
    settings = {"NATS_NAME": "one", "NATS_ROUTES": "[nats://127.0.0.1:1, nats://127.0.0.1:2]"}
    with running_nats(INFRA / "nats" / "cluster.conf", tmp_path, **settings) as monitor:
        server, jetstream = monitor("varz"), monitor("jsz?config=1")

    assert server["server_name"] == "one"
    assert server["cluster"]["name"] == "penstock"
    assert server["max_payload"] >= BrokerSection().payload_bytes_max
    assert jetstream["config"]["sync_always"] is True
