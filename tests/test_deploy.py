"""The files in deploy/ are well formed, hardened, and name only settings that exist."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings.options import OPTIONS

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
MANIFESTS = ("deployment.yaml", "service.yaml", "poddisruptionbudget.yaml")
PORTS = {"native": 56789, "wyoming": 10300, "http": 8080}
SETTINGS = {option.variable: option for option in OPTIONS}

# A supported release that is not newer than the k3s on Debian.
KUBERNETES = "1.31"


class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A YAML loader that rejects duplicate keys; the usual loader keeps the last one."""


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert len(keys) == len(set(keys)), f"duplicate key, at {node.start_mark}"
    found: dict[Any, Any] = super(Strict, loader).construct_mapping(node, deep=True)
    return found


Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


@functools.cache
def read(name: str) -> Any:
    return yaml.load((DEPLOY / name).read_text(), Loader=Strict)


def all_settings() -> Iterator[tuple[str, str]]:
    """Every setting of the node in compose.yaml and the manifests, and its value."""
    yield from read("compose.yaml")["services"]["node"]["environment"].items()
    for entry in container()["env"]:
        yield entry["name"], entry["value"]


def pod() -> dict[str, Any]:
    found: dict[str, Any] = read("k8s/deployment.yaml")["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    result: dict[str, Any] = found
    return result


def seconds(text: str) -> int:
    """The seconds of a Compose duration, in the forms that the file uses."""
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert match, text
    return int(match[1] or 0) * 60 + int(match[2] or 0)


def test_every_setting_exists_and_its_value_is_valid() -> None:
    found = list(all_settings())
    assert found
    for name, value in found:
        assert name in SETTINGS
        # The directories exist only in the image.
        if not value.startswith("/"):
            SETTINGS[name].parse(value)


def test_compose_file_is_hardened() -> None:
    service = read("compose.yaml")["services"]["node"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"] == service["memswap_limit"]
    # The user decides whether to open it to the network.
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert {int(port.rsplit(":")[-1]) for port in service["ports"]} == set(PORTS.values())


def test_compose_mounts_the_volumes_and_waits_for_the_drain() -> None:
    document = read("compose.yaml")
    service = document["services"]["node"]
    mounts = dict(volume.split(":") for volume in service["volumes"])
    assert mounts.keys() == document["volumes"].keys()
    image = (ROOT / "Dockerfile.arm64").read_text()
    assert all(f'"{target}"' in image for target in mounts.values())
    drain = float(service["environment"]["NODE_WHISPER_DRAIN_SECONDS"])
    assert drain < seconds(service["stop_grace_period"])
    assert (DEPLOY / service["build"]["context"] / "Dockerfile").resolve().is_file()


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid_for_kubernetes(name: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(read(f"k8s/{name}"), KUBERNETES, strict=True)


def test_schema_rejects_an_unknown_field() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    wrong = copy.deepcopy(read("k8s/deployment.yaml"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, KUBERNETES, strict=True)


def test_kustomization_lists_all_manifests() -> None:
    assert sorted(read("k8s/kustomization.yaml")["resources"]) == sorted(MANIFESTS)
    there = {path.name for path in (DEPLOY / "k8s").glob("*.yaml")}
    assert there == {*MANIFESTS, "kustomization.yaml"}


def test_manifests_select_the_same_pods() -> None:
    deployment = read("k8s/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = read("k8s/poddisruptionbudget.yaml")["spec"]
    (spread,) = pod()["topologySpreadConstraints"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        read("k8s/service.yaml")["spec"]["selector"],
        budget["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    # Otherwise no machine could be drained.
    assert budget["minAvailable"] < deployment["spec"]["replicas"]


def test_manifest_ports_are_those_of_the_image() -> None:
    assert {port["name"]: port["containerPort"] for port in container()["ports"]} == PORTS
    ports = read("k8s/service.yaml")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in ports} == PORTS


def test_pods_are_hardened_and_have_probes() -> None:
    everyone, own = pod()["securityContext"], container()["securityContext"]
    assert everyone["runAsNonRoot"] is True
    assert f"USER {everyone['runAsUser']}:{everyone['runAsGroup']}" in (
        ROOT / "Dockerfile.arm64"
    ).read_text().replace('"', "")
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container()[probe]["httpGet"] == {"path": path, "port": "http"}
    assert "memory" in container()["resources"]["limits"]


def test_grace_period_of_pods_covers_the_drain() -> None:
    settings = {entry["name"]: entry["value"] for entry in container()["env"]}
    (*_, before) = container()["lifecycle"]["preStop"]["exec"]["command"]
    grace = pod()["terminationGracePeriodSeconds"]
    assert float(settings["NODE_WHISPER_DRAIN_SECONDS"]) + float(before) < grace


def test_pods_mount_every_volume() -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod()["volumes"]}
    assert {"/models", "/spool", "/journal"} <= set(mounts.values())


def test_haproxy_accepts_its_configuration() -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("haproxy is not installed here (Debian: apt install haproxy)")
    done = subprocess.run(
        [program, "-c", "-f", DEPLOY / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
