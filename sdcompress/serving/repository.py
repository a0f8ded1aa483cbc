"""Load, exchange, roll back and unload models while they serve, and lose no accepted request by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Lock, Thread
from time import perf_counter
from typing import Any

from sdcompress.errors import SetupError, UsageError, brief, nearest
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.serving.errors import NoSuchModelError, UnavailableError
from sdcompress.serving.metrics import Metrics
from sdcompress.serving.model import ServedModel, version_of
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.preparing import Preparing
from sdcompress.serving.source import Source
from sdcompress.serving.versions import Versions

__all__ = ["Repository"]

_LOG = logging.getLogger(__name__)


class Repository:
    """The models of a service by name, each with its versions.

    A new version is opened, checked and warmed up beside the one that serves. Requests go to it by one assignment, once
    it is ready. The version before stays in memory for a rollback; one that no longer stays is stopped after the last
    request that holds it. Whatever fails leaves the version that serves as it is.

    Args:
        engines: name -> engines of its versions; the first one serves.
        sources: name -> where a new version comes from; without one a model cannot be loaded again.
        options: of the service.
        metrics: of the service.
        preparing: threads for raw examples.

    Raises:
        UsageError: if a backend does not offer its stages one by one, or the versions of a model do not go together.
    """

    def __init__(
        self,
        engines: Mapping[str, Sequence[CascadeEngine]],
        sources: Mapping[str, Source],
        options: ServiceOptions,
        metrics: Metrics,
        preparing: Preparing,
    ) -> None:
        self._sources, self._options, self._metrics, self._preparing = sources, options, metrics, preparing
        self._changing, self._stopping = Lock(), False
        self._retiring: list[Thread] = []
        self._failures: dict[str, str] = {}
        self._versions = {name: self._first_versions(name, listed) for name, listed in engines.items()}

    @property
    def models(self) -> dict[str, ServedModel]:
        """Return the version of each loaded model that serves."""
        return {name: versions.current for name, versions in self._versions.items() if versions.current is not None}

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return the version that serves, or another one in memory.

        Raises:
            NoSuchModelError: if there is none.
        """
        versions = self._of(name)
        model = versions.current if version is None else versions.find(version)
        if model is None:
            what = f"The model '{name}' is not loaded."
            raise NoSuchModelError(
                what
                if version is None or not versions.models
                else f"There is no version '{brief(version)}' of the model '{name}'.",
                allowed=", ".join(versions.names()),
                next_step="leave the version out" if versions.models else "ask whoever runs the service to load it",
            )
        return model

    def warm_up(self) -> None:
        """Warm up all versions, those that serve first."""
        with self._changing:
            models = [model for versions in self._versions.values() for model in versions.models]
            for model in sorted(models, key=lambda model: model is not self._versions[model.name].current):
                if self._stopping:
                    return
                if not model.ready:  # a load may have come before
                    model.warm_up()
                if model is self._versions[model.name].current:
                    model.describe()
                _LOG.info("model ready", extra={"model": model.name, "version": model.version})

    def load(self, name: str) -> ServedModel:
        """Let what the folder of a model holds now serve, and return it. It may be what serves already.

        Raises:
            NoSuchModelError: if there is no such model.
            SdcompressError: if the folder cannot be served; the version that serves still does.
        """
        return self._changed(name, "loaded", self._load)

    def roll_back(self, name: str) -> ServedModel:
        """Let the version serve that did before, and return it. The other one stays for another rollback.

        Raises:
            NoSuchModelError: if there is no such model.
            UsageError: if there is no such version in memory.
        """
        return self._changed(name, "rolled back", self._roll_back)

    def reset_drift(self, name: str) -> ServedModel:
        """End the fall-back of the version that serves, forget the evidence of drift, and return the version.

        Raises:
            NoSuchModelError: if there is no such model.
            UsageError: if it is not watched.
        """
        model = self.model(name)
        model.reset_drift()
        return model

    def load_all(self) -> None:
        """Load all models again; what fails is logged and counted."""
        for name in self._versions:
            with suppress(Exception):  # ``load`` has logged it, and the others are to be loaded
                self.load(name)

    def unload(self, name: str) -> None:
        """Take a model out of service and free its memory; ``load`` brings it back.

        Raises:
            NoSuchModelError: if there is no such model.
        """
        versions = self._of(name)
        with self._changing:
            self._retire(versions.drop(0))
            self._metrics.forget(name)
            self._count(name, "unloaded", "")

    def index(self) -> list[dict[str, Any]]:
        """Return all models with their versions, as Triton's extension of the protocol lists them."""
        listed = []
        for name, versions in self._versions.items():
            for model in versions.models:
                state = "READY" if model.ready else "UNAVAILABLE"
                serves = model is versions.current
                reason = self._failures.get(name, "") if serves else "kept for a rollback"
                listed.append({"name": name, "version": model.version, "state": state, "reason": reason})
            if not versions.models:
                listed.append({"name": name, "state": "UNAVAILABLE", "reason": self._failures.get(name, "unloaded")})
        return listed

    def close(self) -> None:
        """Change nothing more."""
        self._stopping = True

    def stop(self) -> None:
        """Finish all accepted requests."""
        self.close()
        with self._changing:
            for versions in self._versions.values():
                for model in versions.models:
                    model.stop()
            for thread in self._retiring:
                thread.join()

    def _of(self, name: str) -> Versions:
        versions = self._versions.get(name)
        if versions is None:
            guess = nearest(name, self._versions)
            raise NoSuchModelError(
                f"There is no model '{brief(name)}'." + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=", ".join(self._versions),
                next_step="correct the name",
            )
        return versions

    def _changed(self, name: str, outcome: str, change: Callable[[str, Versions], ServedModel]) -> ServedModel:
        """Change which version serves, one change at a time, and count how that ends."""
        versions = self._of(name)
        with self._changing:
            before, start = versions.current, perf_counter()
            try:
                if self._stopping:
                    raise _stops()
                model = change(name, versions)
            except Exception as error:
                self._failures[name] = f"the last change failed: {str(error).partition(chr(10))[0]}"
                self._metrics.loads.labels(name, "failed").inc()
                _LOG.error("a version cannot serve", extra={"model": name}, exc_info=error)
                raise
            self._failures.pop(name, None)
            self._retire(versions.serve(model))
            model.describe()
            self._count(name, "unchanged" if model is before else outcome, model.version, perf_counter() - start)
            return model

    def _load(self, name: str, versions: Versions) -> ServedModel:
        source = self._sources.get(name)
        if source is None:
            raise UsageError(
                f"The model '{name}' was not given as a folder.", next_step="start the service with a folder for it"
            )
        artifact = source.artifact()
        if known := versions.find(version_of(artifact.manifest)):  # it needs no memory
            return known
        self._make_room(source, versions)
        model = self._new_model(name, source.open(artifact))
        if versions.current is not None:
            _check_alike(model, versions.current)
        model.warm_up()
        if self._stopping:
            model.stop()
            raise _stops()
        return model

    def _make_room(self, source: Source, versions: Versions) -> None:
        """Give up the versions for rollbacks if a new one would not fit beside them."""
        try:
            source.check_memory()
        except SetupError:
            if versions.before is None:
                raise
            for thread in self._retire(versions.drop(1)):
                thread.join()
            source.check_memory()

    def _roll_back(self, name: str, versions: Versions) -> ServedModel:
        if versions.before is None:
            raise UsageError(
                f"There is no version of '{name}' before the one that serves.",
                allowed="a rollback after a load, while the version before stays in memory (--versions)",
                next_step="export that version into the folder again, and load it",
            )
        return versions.before

    def _new_model(self, name: str, engine: CascadeEngine) -> ServedModel:
        return ServedModel(name, engine, self._options, self._metrics, self._preparing)

    def _first_versions(self, name: str, engines: Sequence[CascadeEngine]) -> Versions:
        models = [self._new_model(name, engine) for engine in engines]
        names = [model.version for model in models]
        if len(set(names)) < len(names) or len(names) > self._options.versions:
            raise UsageError(
                f"The model '{name}' has the versions {', '.join(names)}.",
                allowed=f"{self._options.versions} different ones at most (--versions)",
                next_step="name fewer, each once, or raise --versions",
            )
        for other in models[1:]:
            _check_alike(other, models[0])
        versions = Versions(models, self._options.versions)
        self._metrics.queue.labels(name).set_function(lambda: float(versions.rows))
        return versions

    def _retire(self, models: Sequence[ServedModel]) -> list[Thread]:
        """Stop models on threads, once nobody uses them."""
        self._retiring = [thread for thread in self._retiring if thread.is_alive()]
        threads = [Thread(target=model.retire, name=f"retire {model.version}", daemon=True) for model in models]
        for thread in threads:
            thread.start()
        self._retiring += threads
        return threads

    def _count(self, name: str, outcome: str, version: str, seconds: float = 0.0) -> None:
        self._metrics.loads.labels(name, outcome).inc()
        extra = {"model": name, "version": version, "outcome": outcome, "seconds": round(seconds, 3)}
        _LOG.info("version", extra=extra)


def _check_alike(new: ServedModel, old: ServedModel) -> None:
    """Refuse a version that would break the clients of the one that serves."""
    for part in ("inputs", "outputs"):
        ours, theirs = new.metadata()[part], old.metadata()[part]
        if ours != theirs:
            raise UsageError(
                f"The version {new.version} of '{new.name}' has other {part} than {old.version}: {brief(ours)}.",
                allowed=f"those of the version that serves: {brief(theirs)}",
                next_step="serve it under another name",
            )


def _stops() -> UnavailableError:
    return UnavailableError(
        "The service stops.", allowed="changes while it runs", next_step="start it again", retry_after_s=1.0
    )
