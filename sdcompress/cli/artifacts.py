"""verify and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdcompress.cli.options import Json, Threads
from sdcompress.cli.screen import write_json

__all__ = ["VERBS"]

Artifact = Annotated[Path, typer.Argument(help="folder of an artifact")]


def verify(artifact: Artifact, threads: Threads = 1, json: Json = False) -> None:
    """Prove an artifact on this machine, without torch: its files, and its logits on the golden samples.

    Example: sdcompress verify artifacts/early-exit
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_verdicts

    found = api.verify(artifact, threads=threads)
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_verdicts(found)


def inspect(artifact: Artifact, json: Json = False) -> None:
    """Show what an artifact is: exits, costs, policy, where it comes from.

    Example: sdcompress inspect artifacts/early-exit
    """
    from sdcompress.artifact.read import open_artifact
    from sdcompress.cli.tables import show_manifest

    manifest = open_artifact(artifact).manifest
    if json:
        write_json(manifest.model_dump(mode="json"))
    else:
        show_manifest(manifest, str(artifact))


VERBS = (verify, inspect)
