"""What a package holds and what it was made from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sdcompress.schema.base import Frozen, Sha256

__all__ = ["Package"]


class Package(Frozen):
    """The record of a package, ``package.json`` in its folder. ``SHA256SUMS`` beside it has the hash of every file."""

    target: str = Field(description="of 'sdcompress list targets'")
    artifact: Sha256 = Field(description="digest of the artifact that it was made from")
    settings: dict[str, Any] = Field(description="of the target, with their defaults")
    models: tuple[str, ...] = Field(description="names of the models, that which clients call first")
    guarantee: str = Field(description="of the exit policy, in words; empty: the package applies no policy")
    sdcompress: str = Field(description="version that wrote it")
