"""Hold the versions of one model that are in memory, and say which of them serves."""

from __future__ import annotations

from collections.abc import Sequence

from sdcompress.serving.model import ServedModel

__all__ = ["Versions"]


class Versions:
    """The versions of one model: the one that serves, then those that served before it, the latest first.

    ``models`` is replaced as a whole, so that other threads may read it at any time. One at a time may change it.

    Args:
        models: the one that serves, and others.
        most: that stay in memory.
    """

    def __init__(self, models: Sequence[ServedModel], most: int) -> None:
        self.models, self._most = tuple(models), most
        for model in models:
            model.versions = self.names

    @property
    def current(self) -> ServedModel | None:
        """Return the version that serves; None: the model is unloaded."""
        models = self.models
        return models[0] if models else None

    @property
    def before(self) -> ServedModel | None:
        """Return the version that served before it, if it is still in memory."""
        models = self.models
        return models[1] if len(models) > 1 else None

    @property
    def rows(self) -> int:
        """Return the rows that wait or run in all versions."""
        return sum(model.rows for model in self.models)

    def names(self) -> list[str]:
        """Return what the versions are called in URLs."""
        return [model.version for model in self.models]

    def find(self, version: str) -> ServedModel | None:
        """Return a version by its name."""
        return next((model for model in self.models if model.version == version), None)

    def serve(self, model: ServedModel) -> tuple[ServedModel, ...]:
        """Let a version serve, a new one or one of these, and return those that no longer stay."""
        ordered = (model, *(other for other in self.models if other is not model))
        self.models, model.versions = ordered[: self._most], self.names
        return ordered[self._most :]

    def drop(self, keep: int) -> tuple[ServedModel, ...]:
        """Keep so many versions, and return the others."""
        dropped = self.models[keep:]
        self.models = self.models[:keep]
        return dropped
