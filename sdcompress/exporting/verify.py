"""Prove an artifact where it will run, without torch: its files, and the checkpoint's logits on the golden samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdcompress.artifact.read import open_artifact
from sdcompress.data.preprocess import normalise
from sdcompress.errors import ParityError
from sdcompress.runtime.open import open_engine
from sdcompress.schema.report import ExitVerdict, VerifyReport

__all__ = ["verify"]


def verify(artifact: Path | str, *, threads: int = 1) -> VerifyReport:
    """Check an artifact's integrity and that its graphs give the checkpoint's logits on this machine.

    The golden images are run together and one by one: an image's logits must not depend on those beside it.

    Args:
        artifact: the folder.
        threads: of ONNX Runtime.

    Returns:
        The figures of each exit; an artifact that fails raises.

    Raises:
        ArtifactError: if the artifact is corrupt, truncated or edited.
        ParityError: if an exit's logits are not the checkpoint's.
    """
    opened = open_artifact(artifact)
    golden = opened.golden()
    engine = open_engine(opened.path, threads=threads)
    inputs = normalise(golden.images, opened.manifest.input.preprocess)
    together = engine.exits(inputs)
    alone = np.concatenate([engine.exits(inputs[row : row + 1]) for row in range(len(inputs))], axis=1)
    allowed = {record.exit: record.allowed for record in opened.manifest.parity}
    verdicts = []
    for index, exit_ in enumerate(opened.manifest.exits):
        verdict = ExitVerdict(
            name=exit_.name,
            max_abs=_largest(together[index] - golden.logits[index]),
            row_abs=_largest(alone[index] - together[index]),
            allowed=allowed[exit_.name],
            flips=int((together[index].argmax(1) != golden.logits[index].argmax(1)).sum()),
        )
        verdicts.append(verdict)
        _check(opened.path, verdict)
    manifest = opened.manifest
    return VerifyReport(
        source=str(artifact),
        digest=manifest.digest,
        layout=manifest.layout,
        files=len(manifest.segments) + 3,
        samples=len(golden.labels),
        exits=tuple(verdicts),
    )


def _largest(difference: np.ndarray) -> float:
    largest = float(np.abs(difference).max())
    return largest if np.isfinite(largest) else float(np.finfo(np.float32).max)


def _check(path: Path, verdict: ExitVerdict) -> None:
    if verdict.max_abs > verdict.allowed:
        found = f"its logits are off by {verdict.max_abs:.2g} from the checkpoint's, {verdict.flips} classes change"
    elif verdict.row_abs > verdict.allowed:
        found = f"an image's logits move by {verdict.row_abs:.2g} with the images beside it"
    else:
        return
    raise ParityError(
        f"The exit '{verdict.name}' of '{path}' fails on this machine: {found}.",
        allowed=f"a difference of {verdict.allowed:.2g}",
        next_step="run 'sdcompress doctor'; try the version of onnxruntime that its manifest names",
    )
