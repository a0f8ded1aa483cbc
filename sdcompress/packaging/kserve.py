"""KServe: an InferenceService that serves a Triton model repository, and the repository to upload."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sdcompress.artifact.read import Artifact
from sdcompress.packaging.triton import Triton

__all__ = ["KServe"]

_REPOSITORY, _SERVICE = "repository", "inferenceservice.yaml"


class KServe(Triton):
    """Write ``inferenceservice.yaml`` and, in ``repository``, what its storage has to hold.

    The service asks for KServe's runtime for Triton with the Open Inference Protocol (v2). Its keys are those of
    serving.kserve.io/v1beta1 in KServe's published CRD. No cluster has run it.
    """

    storage_uri: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://\S+$")] = Field(
        description="where the content of 'repository' will lie, e.g. s3://bucket/digits, pvc://volume/digits"
    )
    service: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = Field(
        None, description="name of the InferenceService; null: that of the model, in lower case"
    )
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = Field(
        None, description="of Kubernetes; null: that of the context"
    )
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] | None = Field(
        "kserve-tritonserver", description="ServingRuntime or ClusterServingRuntime; null: KServe chooses by the format"
    )
    runtime_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = Field(
        None,
        description="tag of Triton's image, e.g. 24.10-py3; null: that of the cluster's runtime. Graphs of opset 18 or "
        "more have IR version 10, which needs ONNX Runtime 1.18 or newer in the image",
    )
    min_replicas: NonNegativeInt = Field(1, description="0: none while there are no requests, where KServe can do that")
    max_replicas: PositiveInt = Field(1, description="above min_replicas: KServe scales between them")
    cpu: Annotated[str, Field(pattern=r"^[0-9.]+m?$")] = Field(
        "1", description="of each replica, requested and at most"
    )
    memory: Annotated[str, Field(pattern=r"^[0-9.]+([kMGT]|[KMGT]i)?$")] = Field("2Gi", description="likewise")
    protocol: Literal["v2", "grpc-v2"] = Field("v2", description="of the Open Inference Protocol: REST, or gRPC")

    @model_validator(mode="after")
    def _replicas_rise(self) -> KServe:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is less than min_replicas")
        return self

    def write(self, artifact: Artifact, folder: Path) -> tuple[str, ...]:
        """Write the repository and the service; see ``Target``."""
        (folder / _REPOSITORY).mkdir()
        models = super().write(artifact, folder / _REPOSITORY)
        text = yaml.safe_dump(self._service(models[0]), sort_keys=False)
        (folder / _SERVICE).write_text(text, encoding="utf-8", newline="\n")
        return models

    def next_steps(self, out: Path) -> tuple[str, ...]:
        """Return what to upload and to apply."""
        return (
            f"copy the content of {out / _REPOSITORY} to {self.storage_uri}",
            f"kubectl apply -f {shlex.quote(str(out / _SERVICE))}",
        )

    def _service(self, model: str) -> dict[str, Any]:
        """Return the InferenceService."""
        resources: dict[str, Any] = {"cpu": self.cpu, "memory": self.memory}
        gpus = {"nvidia.com/gpu": 1} if self.runs_on == "cuda" else {}
        given = model.lower().replace("_", "-").replace(".", "-")
        derived = given if given[0].isalpha() else f"model-{given}"  # Kubernetes wants a letter first
        name = self.service or derived[:63].rstrip("-")
        predictor = {
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "model": {
                "modelFormat": {"name": "triton"},
                "protocolVersion": self.protocol,
                **({"runtime": self.runtime} if self.runtime else {}),
                **({"runtimeVersion": self.runtime_version} if self.runtime_version else {}),
                "storageUri": self.storage_uri,
                "resources": {"requests": resources | gpus, "limits": resources | gpus},
            },
        }
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, **({"namespace": self.namespace} if self.namespace else {})},
            "spec": {"predictor": predictor},
        }
