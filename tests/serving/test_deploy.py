"""The files for containers and Kubernetes say what the service does."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sdcompress.cli.serve import serve as command
from sdcompress.serving.options import ServiceOptions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options that the command line takes these arguments for."""
    application = typer.Typer()
    application.command()(command)
    return typer.main.get_command(application).make_context("serve", list(arguments)).params


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, each with the rest of its line; continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (FOLDER / "Containerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


@pytest.fixture
def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))}


def test_the_image_runs_the_command_as_a_user_without_rights() -> None:
    last = dict(instructions())  # of the second stage, where an instruction occurs twice
    assert json.loads(last["ENTRYPOINT"]) == ["sdcompress", "serve"]
    options = parsed(json.loads(last["CMD"]))
    assert options["artifacts"] == ["model=/artifact"]
    assert options["host"] == "0.0.0.0"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"]), "a number, so that runAsNonRoot can check it"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["EXPOSE"].split() == [str(options["port"]), str(options["metrics_port"])]


def test_the_image_holds_what_it_copies_and_only_the_extra_of_the_server() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name
        for kind, rest in instructions()
        if kind == "COPY" and not rest.startswith("--from")
        for name in shlex.split(rest)[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    (install,) = (rest for kind, rest in instructions() if kind == "RUN")
    assert "/source[serve]" in install


def test_the_health_check_asks_whether_the_service_is_ready(serve: Any, tiny_artifact: Callable[..., Path]) -> None:
    (check,) = (rest for kind, rest in instructions() if kind == "HEALTHCHECK")
    *_, program = json.loads(check.partition("CMD ")[2])
    compile(program, "health", "exec")
    url = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]*)", program)
    assert url
    assert int(url[1]) == ServiceOptions.port
    client = serve({"tiny": tiny_artifact()}, warm=False)
    assert client.get(url[2]).status_code == 503
    client.service.start().join()
    assert client.get(url[2]).status_code == 200


def test_the_pod_has_the_time_to_drain_and_no_rights(manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = parsed(container["args"])
    delay = float(options["drain_delay"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] > delay + ServiceOptions.drain_timeout
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < delay, "balancers notice within the delay"
    assert options["threads"] == int(container["resources"]["limits"]["cpu"])
    assert options["max_bodies"] < 1024 * int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not security["allowPrivilegeEscalation"]
    user = pod["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == dict(instructions())["USER"]
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_probes_and_services_lead_to_paths_and_ports_that_are_there(client: Any, manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = parsed(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": options["port"], "metrics": options["metrics_port"]}
    assert int(pod["metadata"]["annotations"]["prometheus.io/port"]) == options["metrics_port"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert client.get(asked["path"]).status_code == 200
        assert asked["port"] == "http"
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    labels = pod["metadata"]["labels"]
    assert labels == manifests["Deployment"]["spec"]["selector"]["matchLabels"]
    assert labels == manifests["Service"]["spec"]["selector"]
    assert labels == manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
