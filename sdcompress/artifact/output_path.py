"""Refuse outputs inside an artifact or a training run: an extra file would invalidate it."""

from __future__ import annotations

from pathlib import Path

from sdcompress.checkpoint import STATE, STEPS, is_artifact
from sdcompress.errors import OutputExistsError

__all__ = ["check_outside"]


def check_outside(out: Path | str, *, adds: bool = False) -> None:
    """Refuse an output path inside an artifact or a training run.

    Every verb that writes to a path of the user calls this first.

    Args:
        out: the output path; links are followed.
        adds: the output is added to an existing folder, so that ``out`` itself may not be an artifact or a run either.

    Raises:
        OutputExistsError: if the path lies inside one of them.
    """
    out = Path(out).resolve()
    for folder in [*([out] if adds else []), *out.parents]:
        kind = _kind(folder)
        if kind:
            position = (
                f"lies inside the {kind} '{folder}'"
                if folder != out
                else f"is the folder of {'an' if kind == 'artifact' else 'a'} {kind}"
            )
            raise OutputExistsError(
                f"'{out}' {position}, which the output would invalidate.",
                allowed="a path outside artifacts and training runs",
                next_step=f"choose another path, e.g. {folder.parent / f'{folder.name}-{out.name}'}",
            )


def _kind(folder: Path) -> str:
    if is_artifact(folder):
        return "artifact"
    return "training run" if any((folder / STEPS).glob(f"*/{STATE}")) else ""
