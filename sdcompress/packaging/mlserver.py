"""MLServer: the artifact, and the settings by which sdcompress's runtime serves it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from sdcompress.artifact.execution_target import ExecutionTarget, check_covered
from sdcompress.artifact.read import Artifact
from sdcompress.errors import CertificateError
from sdcompress.packaging._base import ModelName, Target, model_name

__all__ = ["MLServer"]

_ARTIFACT, _SETTINGS = "artifact", "model-settings.json"
_RUNTIME = "sdcompress.serving.mlserver.SdcompressRuntime"


class MLServer(Target):
    """Write ``model-settings.json`` and the artifact in ``artifact``, as MLServer loads them from one folder.

    MLServer needs ``sdcompress[serve]`` installed beside it; docs/mlserver.md.
    """

    name: ModelName | None = Field(None, description="of the model; null: the name of the artifact's recipe")
    device: Literal["cpu", "cuda"] = Field("cpu", description="that runs the graphs")
    threads: PositiveInt | None = Field(None, description="of ONNX Runtime; null: those that other work leaves free")
    latency_bound: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds within which every request is to be answered; null: 1"
    )
    batch_rows: PositiveInt | None = Field(None, description="most rows of a batch; null: 32")
    queue_rows: PositiveInt | None = Field(None, description="rows that wait or run at once; null: 1024")

    def execution_target(self, artifact: Artifact) -> ExecutionTarget:
        """Return onnxruntime and the device; see ``Target``."""
        del artifact
        return ExecutionTarget("onnxruntime", self.device)

    def applies_policy(self, artifact: Artifact) -> bool:
        """Return whether the artifact has a policy; without one all rows run to the end."""
        return artifact.manifest.policy is not None

    def write(self, artifact: Artifact, folder: Path) -> tuple[str, ...]:
        """Copy the artifact and write the settings; see ``Target``."""
        name = self.name or model_name(artifact)
        shutil.copytree(artifact.path, folder / _ARTIFACT)
        extra: dict[str, Any] = self.model_dump(exclude={"name"}, exclude_none=True)
        try:
            check_covered(artifact.manifest, self.execution_target(artifact))
        except CertificateError:  # ``package`` was told to allow it; without this MLServer refuses to load it
            extra["allow_uncertified"] = True
        settings = {
            "name": name,
            "implementation": _RUNTIME,
            "parameters": {"uri": f"./{_ARTIFACT}", "version": artifact.manifest.digest[:12], "extra": extra},
        }
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
        return (name,)

    def next_steps(self, out: Path) -> tuple[str, ...]:
        """Return the command that starts MLServer."""
        return (
            f"mlserver start {shlex.quote(str(out.resolve()))}",
            "MLServer needs this package beside it: pip install mlserver 'sdcompress[serve]'",
        )
