"""Keep a search in a file by Optuna: what was tried, what to try next. A search that was killed goes on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdcompress.errors import OutputExistsError, requires_extra
from sdcompress.schema.search import SearchRange, Tune, Value
from sdcompress.schema.tuning import Trial

if TYPE_CHECKING:
    import optuna

__all__ = ["JOURNAL", "Study", "TrialPruned"]

JOURNAL = "study.journal"
_DIGEST, _TRIAL = "searched", "trial"
_STARTUP = 5  # trials before the median prunes
_NAME = "tune"


class TrialPruned(Exception):
    """The pruner has ended a trial early."""


class Study:
    """The trials of a search.

    Args:
        folder: holds the journal, and is locked.
        digest: of everything that decides what a trial gives: another one is another search.
        ranges: of the searched keys.
        settings: sampler and pruner.
        seed: of the sampler. Trial n draws by (seed, n), so that a search that went on equals one that never stopped.
        first: values of trial 0, in their ranges.
        warm_epochs: of a trial, before which the pruner lets it be.

    Raises:
        OutputExistsError: if the folder holds another search.
        MissingExtraError: if the extra 'tune' is not installed.
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        ranges: Mapping[str, SearchRange],
        settings: Tune,
        *,
        seed: int,
        first: Mapping[str, Value],
        warm_epochs: int,
    ) -> None:
        with requires_extra("tune"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._seed, self._settings = optuna, seed, settings
        self._ranges, self._first = ranges, dict(first)
        pruners = {
            "none": optuna.pruners.NopPruner,
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=warm_epochs),
        }
        _remove_partial_line(folder / JOURNAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            journal = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(journal),
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
                pruner=pruners[settings.pruner](),
                sampler=self._sampler(0),
            )
        begun = self._study.user_attrs.get(_DIGEST)
        if begun not in (None, digest):
            raise OutputExistsError(
                f"{folder} holds a search of another recipe, over other ranges, or with other weights or another file "
                "of the method.",
                allowed="the same recipe, ranges, epochs, exit, sampler and pruner, and the same contents of "
                "model.weights, method.teacher and method.file; trials and minutes may be others",
                next_step="choose another --out, or --overwrite to throw the old search away",
            )
        if begun is None:
            self._study.enqueue_trial(self._first, skip_if_exists=True)
            self._study.set_user_attr(_DIGEST, digest)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Return the trials that are over, in order."""
        over = [trial.user_attrs.get(_TRIAL) for trial in self._study.get_trials(deepcopy=False)]
        return tuple(Trial.model_validate(facts) for facts in over if facts is not None)

    def next(self) -> tuple[int, dict[str, Value]]:
        """Return number and values of the trial that was under way when the search was stopped, or of a new one."""
        states = self._optuna.trial.TrialState
        begun = self._study.get_trials(deepcopy=False, states=(states.RUNNING,))
        if begun:
            self._trial = self._optuna.trial.Trial(self._study, begun[0]._trial_id)  # noqa: SLF001 - Optuna resumes none
        else:
            over = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
            self._study.sampler = self._sampler(len(over))
            self._trial = self._study.ask()
        # of a trial that was under way these are the values that it has
        values = {key: range_.cast(self._suggested(key, range_)) for key, range_ in self._ranges.items()}
        return self._trial.number, values if self._trial.number else dict(self._first)

    def report(self, metric: float, epoch: int) -> None:
        """Record the metric of an epoch of the trial under way.

        Raises:
            TrialPruned: if the pruner ends it.
        """
        self._trial.report(metric, epoch)
        if self._trial.should_prune():
            raise TrialPruned

    def tell(self, trial: Trial) -> None:
        """Record the trial under way as over."""
        states = self._optuna.trial.TrialState
        self._trial.set_user_attr(_TRIAL, trial.model_dump(mode="json"))
        if trial.state == "pruned":
            self._study.tell(self._trial, state=states.PRUNED)
        else:
            self._study.tell(self._trial, trial.metric)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        samplers = self._optuna.samplers
        return samplers.TPESampler(seed=seed) if self._settings.sampler == "tpe" else samplers.RandomSampler(seed=seed)

    def _suggested(self, key: str, range_: SearchRange) -> Any:
        if range_.kind == "choice":
            return self._trial.suggest_categorical(key, range_.choices)
        if range_.kind == "int":
            return self._trial.suggest_int(key, int(range_.low), int(range_.high))
        return self._trial.suggest_float(key, range_.low, range_.high, log=range_.kind == "log")


def _remove_partial_line(journal: Path) -> None:
    """Remove a last line without its end, as a full disk or a killed process leaves it.

    Optuna appends to it, and then reads the whole journal no more.
    """
    content = journal.read_bytes() if journal.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)
