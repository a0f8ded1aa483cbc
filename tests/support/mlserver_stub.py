"""MLServer without MLServer: the part of its API that the runtime uses, with the types of its requests.

``benchmarks/serve/counterparts.py`` runs the runtime in the real one.
"""

from __future__ import annotations

import sys
import types as modules
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from sdcompress.serving.protocol.datatypes import BYTES, NUMBERS

__all__ = ["InferenceRequest", "MLServerError", "install", "settings_of"]

Datatype = Enum("Datatype", {name: name for name in (*NUMBERS, BYTES)})  # type: ignore[misc]


class Parameters(BaseModel):
    model_config = ConfigDict(extra="allow")
    content_type: str | None = None
    headers: dict[str, Any] | None = None


class TensorData(RootModel[Any]):
    root: Any


class MetadataTensor(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None


class RequestInput(MetadataTensor):
    data: TensorData


class ResponseOutput(RequestInput):
    pass


class RequestOutput(BaseModel):
    name: str
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    id: str | None = None
    parameters: Parameters | None = None
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = None


class InferenceResponse(BaseModel):
    model_name: str
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[ResponseOutput]


class MLServerError(Exception):
    def __init__(self, message: str, status_code: int = 400) -> None:
        super().__init__(message)
        self.status_code = status_code


class MLModel:
    def __init__(self, settings: Any) -> None:
        self.settings, self.name = settings, settings.name
        self.inputs: list[MetadataTensor] = []
        self.outputs: list[MetadataTensor] = []


async def get_model_uri(settings: Any) -> str:
    return str(settings.folder / settings.parameters.uri)


def settings_of(folder: Path, values: dict[str, Any]) -> Any:
    """The settings of model-settings.json as a runtime gets them."""
    return SimpleNamespace(
        name=values["name"], folder=folder, parameters=SimpleNamespace(**values["parameters"]), platform="", versions=[]
    )


def install(monkeypatch: Any) -> None:
    """Let ``import mlserver`` find what stands here."""
    for name in ("mlserver", "mlserver.types", "mlserver.errors", "mlserver.utils"):
        module = modules.ModuleType(name)
        module.__dict__.update({key: value for key, value in globals().items() if not key.startswith("_")})
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "sdcompress.serving.mlserver", raising=False)
