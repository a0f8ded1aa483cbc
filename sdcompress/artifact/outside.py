"""Where nothing may be written: inside an artifact or a training run, which would not be intact with more in it."""

from __future__ import annotations

from pathlib import Path

from sdcompress.artifact.read import MANIFEST
from sdcompress.checkpoint import STATE, STEPS
from sdcompress.errors import OutputExistsError

__all__ = ["check_outside"]

_GOLDEN = "golden.npz"  # many programs write a manifest.json


def check_outside(out: Path | str, *, adds: bool = False) -> None:
    """Refuse an output inside an artifact, which could not be opened then, or a training run, which could not go on.

    Every verb that writes a folder, or a file where its user says, asks this before it works.

    Args:
        out: what is written; links are followed.
        adds: what is written is added to what ``out`` holds, so ``out`` itself may be neither of them.

    Raises:
        OutputExistsError: if it lies inside one.
    """
    out = Path(out).resolve()
    for folder in [*([out] if adds else []), *out.parents]:
        kind = _kind(folder)
        if kind:
            where = (
                f"lies inside the {kind} '{folder}'"
                if folder != out
                else f"is the folder of {'an' if kind == 'artifact' else 'a'} {kind}"
            )
            raise OutputExistsError(
                f"'{out}' {where}, which would not be intact any more.",
                allowed="a folder outside of artifacts and training runs",
                next_step=f"choose another place, e.g. {folder.parent / f'{folder.name}-{out.name}'}",
            )


def _kind(folder: Path) -> str:
    if (folder / MANIFEST).is_file() and (folder / _GOLDEN).is_file():
        return "artifact"
    return "training run" if any((folder / STEPS).glob(f"*/{STATE}")) else ""
