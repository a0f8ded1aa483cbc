"""Hold what a service is made of, before anything of it is opened: it can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.serving.options import ServiceOptions

__all__ = ["ServiceSetup"]


@dataclass(frozen=True)
class ServiceSetup:
    """The artifacts of a service, and how they run.

    Attributes:
        artifacts: name -> folder.
        engine: options of the engines.
        service: options of the service.
        require_signature: PEM file by whose holder the artifacts must be signed; see ``open``.
    """

    artifacts: Mapping[str, Path | str]
    engine: EngineOptions
    service: ServiceOptions
    require_signature: Path | str | None = None

    def engines(self) -> dict[str, CascadeEngine]:
        """Open the artifacts.

        Raises:
            ArtifactError, SignatureError, CertificateError: if one cannot be opened; see ``open``.
        """
        return {
            name: open_cascade(folder, self.engine, require_signature=self.require_signature)
            for name, folder in self.artifacts.items()
        }
