"""The verbs as Python calls; the command line and ``run`` (in ``pipeline``) call these.

Each reads one folder and writes one: ``verb(source, out, settings, options)``. A source is a folder, or what was opened
from it. Settings are a section of the recipe: None for that of the recipe that the source was made by, some of its
keys in a mapping, or a whole section. Options say where and how it runs. Nothing here prints.
"""

from __future__ import annotations

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.signature import sign
from sdcompress.diagnosis import diagnose as doctor
from sdcompress.entries import list_entries
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.explaining.explain import explain
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.build import build_engines
from sdcompress.verbs._types import Source
from sdcompress.verbs.bench import bench
from sdcompress.verbs.calibrate import calibrate, plan
from sdcompress.verbs.evaluate import evaluate, predict
from sdcompress.verbs.export import export, export_all
from sdcompress.verbs.quantize import quantize
from sdcompress.verbs.report import report
from sdcompress.verbs.train import train
from sdcompress.verification.verify import verify

__all__ = [
    "bench",
    "build_engines",
    "calibrate",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "export_all",
    "inspect",
    "list_entries",
    "plan",
    "predict",
    "quantize",
    "report",
    "sign",
    "train",
    "verify",
]


def inspect(source: Source) -> Manifest:
    """What an artifact is: exits, costs, policy, where it comes from.

    Raises:
        ArtifactError: if it is not intact.
    """
    return open_artifact(source.path if isinstance(source, TrainedModel) else source).manifest
