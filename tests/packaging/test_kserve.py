"""An InferenceService, and the Triton repository beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kserve_crd import InferenceService
from pydantic import ValidationError

import sdcompress
from sdcompress.errors import UsageError
from sdcompress.packaging._base import Target
from sdcompress.packaging.kserve import KServe
from sdcompress.packaging.mlserver import MLServer
from sdcompress.packaging.triton import Triton

PAGE = Path(__file__).parents[2] / "docs" / "scale-out.md"


def service(artifact: Path, **settings: Any) -> Any:
    out = artifact.with_name("package")
    sdcompress.package(artifact, out, "kserve", {"storage_uri": "s3://bucket/net", **settings})
    return yaml.safe_load((out / "inferenceservice.yaml").read_text())


def test_the_service_asks_for_the_triton_runtime(tiny_artifact: Callable[..., Path]) -> None:
    artifact = tiny_artifact(policy=(0.85, 0.75))
    assert service(artifact, name="My_Net", min_replicas=0, max_replicas=3, runtime_version="24.10-py3") == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "my-net"},
        "spec": {
            "predictor": {
                "minReplicas": 0,
                "maxReplicas": 3,
                "model": {
                    "modelFormat": {"name": "triton"},
                    "protocolVersion": "v2",
                    "runtime": "kserve-tritonserver",
                    "runtimeVersion": "24.10-py3",
                    "storageUri": "s3://bucket/net",
                    "resources": {
                        "requests": {"cpu": "1", "memory": "2Gi"},
                        "limits": {"cpu": "1", "memory": "2Gi"},
                    },
                },
            }
        },
    }
    repository = artifact.with_name("package") / "repository"
    assert (repository / "My_Net" / "1" / "model.py").is_file()
    assert "repository/My_Net/config.pbtxt" in (repository.parent / "SHA256SUMS").read_text()


def test_the_name_of_a_service_begins_with_a_letter(tiny_artifact: Callable[..., Path]) -> None:
    assert service(tiny_artifact("single"), name="3_exits")["metadata"]["name"] == "model-3-exits"


def test_a_gpu_is_asked_for(tiny_artifact: Callable[..., Path]) -> None:
    model = service(tiny_artifact("single"), device="cuda")["spec"]["predictor"]["model"]
    assert model["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"device": "cuda", "cpu": "500m", "memory": "1.5Gi"},
        {"min_replicas": 0, "max_replicas": 9, "runtime": None, "runtime_version": "24.10-py3", "protocol": "grpc-v2"},
        {"name": "3.Nets_" + "x" * 100, "namespace": "models"},
    ],
)
def test_the_service_is_one_by_the_published_crd(tiny_artifact: Callable[..., Path], settings: dict[str, Any]) -> None:
    InferenceService.model_validate(service(tiny_artifact("single"), **settings))


def test_the_crd_refuses_other_keys_and_types(tiny_artifact: Callable[..., Path]) -> None:
    written = service(tiny_artifact("single"))
    written["spec"]["predictor"]["replicas"] = 2
    written["spec"]["predictor"]["model"]["storageUri"] = 5
    with pytest.raises(ValidationError, match=r"(?s)storageUri.*replicas|replicas.*storageUri"):
        InferenceService.model_validate(written)


def test_the_service_of_the_page_is_one_too() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    InferenceService.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"storage_uri": "bucket/net"}, "storage_uri"),
        ({"min_replicas": 2}, "max_replicas is less than min_replicas"),
        ({"service": "My_Net"}, "service"),
        ({"memory": "lots"}, "memory"),
    ],
)
def test_wrong_settings_are_refused(tiny_artifact: Callable[..., Path], settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        service(tiny_artifact("single"), **settings)


def test_the_storage_has_no_default(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="storage_uri"):
        sdcompress.package(tiny_artifact("single"), tmp_path / "out", "kserve")


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Triton(), ["tritonserver", "--model-repository={out}"]),
        (MLServer(), ["mlserver", "start", "{out}"]),
        (KServe(storage_uri="s3://b/x"), ["kubectl", "apply", "-f", "{out}/inferenceservice.yaml"]),
    ],
)
def test_a_folder_with_a_space_is_one_word_of_the_next_command(target: Target, command: list[str]) -> None:
    out = Path("/models of mine/it's")
    lines = [shlex.split(line) for line in target.next_steps(out) if line.startswith(command[0])]
    assert lines == [[word.format(out=out) for word in command]]
