"""What KServe's InferenceService may hold: the part of its published CRD that this project writes.

Names, types and required keys are those of the custom resource definition inferenceservices.serving.kserve.io,
version v1beta1, in kserve/kserve at commit 047112c8916ef527b7a4b4090effdb1cbc5be29c
(config/crd/full/serving.kserve.io_inferenceservices.yaml). Kubernetes checks them in this way: ``kubectl apply``
refuses an unknown key and a value of another type. Keys that nothing here writes are left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["InferenceService"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]  # a label of RFC 1123
# integer or text: a decimal number with an optional suffix, or an exponent
Quantity = int | Annotated[str, Field(pattern=r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Resources(_Strict):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class ModelFormat(_Strict):
    name: str
    version: str | None = None


class Model(_Strict):
    modelFormat: ModelFormat  # noqa: N815 - the CRD's names
    protocolVersion: str | None = None  # noqa: N815
    runtime: str | None = None
    runtimeVersion: str | None = None  # noqa: N815
    storageUri: str | None = None  # noqa: N815
    resources: Resources = Resources()


class Port(_Strict):
    containerPort: Int32  # noqa: N815
    name: str | None = None
    protocol: str = "TCP"


class HttpGet(_Strict):
    port: int | str
    path: str | None = None


class Probe(_Strict):
    httpGet: HttpGet | None = None  # noqa: N815
    periodSeconds: Int32 | None = None  # noqa: N815


class Container(_Strict):
    name: str
    image: str | None = None
    command: list[str] = []
    args: list[str] = []
    ports: list[Port] = []
    resources: Resources = Resources()
    readinessProbe: Probe | None = None  # noqa: N815
    livenessProbe: Probe | None = None  # noqa: N815


class Predictor(_Strict):
    minReplicas: Int32 | None = None  # noqa: N815
    maxReplicas: Int32 | None = None  # noqa: N815
    model: Model | None = None
    containers: list[Container] = []
    terminationGracePeriodSeconds: int | None = None  # noqa: N815


class Spec(_Strict):
    predictor: Predictor


class Metadata(_Strict):
    name: Name
    namespace: Name | None = None


class InferenceService(_Strict):
    apiVersion: Literal["serving.kserve.io/v1beta1"]  # noqa: N815
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: Spec
