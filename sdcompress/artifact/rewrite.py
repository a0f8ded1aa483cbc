"""An artifact made from another one: its files, other fields, a new card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sdcompress.artifact.card import card_of
from sdcompress.artifact.read import Artifact
from sdcompress.artifact.write import derived, entry, seal
from sdcompress.schema.manifest import Manifest

__all__ = ["rewrite"]


def rewrite(old: Artifact, folder: Path, **changed: Any) -> Manifest:
    """Write a copy of an artifact with some fields changed, and seal it.

    Args:
        old: the artifact; its digest becomes the parent.
        folder: to write in; what is new among the files is there already.
        changed: fields of ``Manifest``; without ``provenance`` it is derived from the artifact. Files that these no
            longer list are not copied.
    """
    fields = {name: getattr(old.manifest, name) for name in Manifest.model_fields if name != "digest"}
    fields |= {"provenance": derived(old.manifest), **changed}
    unsealed = Manifest(**{**fields, "digest": "0" * 64})
    listed = unsealed.files
    for file in old.manifest.files:
        target = folder / file.file
        if file in listed and file != old.manifest.card and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old.file(file), target)
    name = old.manifest.card.file
    (folder / name).write_text(card_of(unsealed), encoding="utf-8", newline="\n")
    return seal(folder, **{**fields, "card": entry(folder, name)})
