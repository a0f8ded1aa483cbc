"""Hold what a service is made of, before anything of it is opened: it can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.options import EngineOptions
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.source import Source

if TYPE_CHECKING:
    from sdcompress.runtime.cascade import CascadeEngine
    from sdcompress.serving.service import Service

__all__ = ["ServiceSetup"]


@dataclass(frozen=True)
class ServiceSetup:
    """The artifacts of a service, and how they run.

    Attributes:
        artifacts: name -> folder.
        engine: options of the engines.
        service: options of the service.
        require_signature: PEM file by whose holder the artifacts must be signed; see ``open``.
        previous: name and folder of versions before, for rollbacks, the latest first.
    """

    artifacts: Mapping[str, Path | str]
    engine: EngineOptions
    service: ServiceOptions
    require_signature: Path | str | None = None
    previous: tuple[tuple[str, Path | str], ...] = ()

    def open(self) -> Service:
        """Open the artifacts, and return their service; it has not begun.

        Raises:
            ArtifactError, SignatureError, CertificateError: if one cannot be opened; see ``open``.
            UsageError: if versions of a model do not go together, or a backend does not offer its stages one by one.
        """
        from sdcompress.serving.service import Service

        sources = {name: self._source(folder) for name, folder in self.artifacts.items()}
        previous: dict[str, list[CascadeEngine]] = {}
        for name, folder in self.previous:
            previous.setdefault(name, []).append(self._source(folder).open())
        engines = {name: source.open() for name, source in sources.items()}
        return Service(engines, self.service, previous=previous, sources=sources)

    def _source(self, folder: Path | str) -> Source:
        return Source(Path(folder).absolute(), self.engine, self.require_signature)
