"""From a source to a data set: check the samples, split, limit, fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sdcompress import modalities, tasks
from sdcompress.data.samples import Dataset, Indices, RawSamples, Samples, Subset
from sdcompress.data.source import Source
from sdcompress.data.split import hold_out, of_each_stratum, sample_order
from sdcompress.errors import DataError, InputError, RecipeError
from sdcompress.modalities import Modality
from sdcompress.schema import recipe
from sdcompress.tasks import Array, Task

__all__ = ["assemble"]

_TEST_SHARE = 0.2
_TEST_SEED = (0, 0)  # not the recipe's: the figures of all runs are on the same samples
_VALIDATION, _TRAIN_LIMIT, _TEST_LIMIT = 1, 2, 3  # independent streams of one seed


@dataclass(frozen=True)
class _SplitSamples:
    """Some positions of what a source gives, and which of all positions are left out."""

    whole: Samples
    task: Task
    indices: Indices
    excluded: Indices

    @property
    def targets(self) -> Array:
        return self.whole.targets[self.indices]

    def hold_out(self, count: int, *seed: int) -> tuple[_SplitSamples, _SplitSamples]:
        stay, held = hold_out(sample_order(self.task, self.targets, seed=seed), count)
        return replace(self, indices=self.indices[stay]), replace(self, indices=self.indices[held])

    def of_each_stratum(self, count: int, *seed: int) -> _SplitSamples:
        """Return the same with ``count`` samples of each stratum.

        Raises:
            RecipeError: if the task has no strata.
        """
        strata = self.task.strata(self.targets)
        if strata is None:
            raise RecipeError(
                f"data.train_per_stratum is {count}, but targets of the task '{self.task.record.name}' have no strata.",
                allowed="tasks with strata, such as the classes of classification",
                next_step="set data.train_limit instead",
            )
        return replace(self, indices=self.indices[of_each_stratum(strata, count, seed=seed)])

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which of the indices are not left out."""
        return ~np.isin(self.indices, self.excluded)

    def without_excluded(self) -> _SplitSamples:
        """Return the same without those that are left out."""
        return replace(self, indices=self.indices[self.kept])

    def replaced_within_stratum(self) -> _SplitSamples:
        """Return the same with the next sample of the stratum in the place of each that is left out.

        So every other sample keeps its position: orders, memories of samples and the number of steps stay as they are.

        Raises:
            RecipeError: if a stratum has no other sample.
        """
        kept, strata, indices = self.kept, self.task.strata(self.targets), self.indices.copy()
        for at in np.flatnonzero(~kept):
            others = np.flatnonzero(kept if strata is None else kept & (strata == strata[at]))
            if len(others) == 0:
                raise RecipeError(
                    "data.exclude leaves no training sample"
                    + ("." if strata is None else f" in the stratum {strata[at]} (for classes: their number)."),
                    allowed="at least one sample to train on in each stratum",
                    next_step="name fewer examples, or take the stratum out of the data set",
                )
            indices[at] = indices[others[np.searchsorted(others, at) % len(others)]]
        return replace(self, indices=indices)


def assemble(
    spec: recipe.Data,
    source: Source,
    *,
    seed: int,
    task: recipe.TaskSection | None = None,
    modality: recipe.ModalitySection | None = None,
) -> Dataset:
    """Split a source as the recipe says; the rules stand at ``sdcompress.data.load``.

    Raises:
        RecipeError: if the recipe's task is not that of the targets, its modality not that of the examples, its
            columns are not those of the source, or nothing is left to train on.
        DataError: if the task cannot have the targets, or the modality the examples.
    """
    _check_columns(spec, source)
    task = _check_task(spec, source, task or recipe.TaskSection())
    prepared_by = modalities.build(modality or recipe.ModalitySection(), source.modality)
    derived = tasks.task_class(task.name).parameters_for(prepared_by.tensors)
    means = tasks.build(task.name, source.outputs, {**derived, **task.parameters})
    raw, source = source, _prepared(source, prepared_by)
    for split in ("train", "val", "test"):
        _check(spec.name, split, source, means, prepared_by)
    if spec.exclude and not any(source.left_out.values()):
        raise RecipeError(
            f"The examples of '{spec.name}' have no names that data.exclude could name.",
            next_step="leave data.exclude out",
        )
    splits = _split(spec, source, seed, means)
    if len(splits["train"].indices) == 0:
        raise RecipeError(
            f"No sample of '{spec.name}' is left to train on: data.validation is {spec.validation:g}.",
            allowed="a share below 1",
            next_step="set data.validation, e.g. to 0.1",
        )
    used = (
        splits["train"].replaced_within_stratum(),
        splits["validation"].without_excluded(),
        splits["test"].without_excluded(),
    )
    train, val, test = (Subset(samples.whole, samples.indices) for samples in used)
    if source.fit is not None:
        learnt_from = splits["train"].without_excluded()
        prepared_by = source.fit(prepared_by, learnt_from.whole.examples(learnt_from.indices))
        _prepared(raw, prepared_by)  # refuses rows that it cannot use; the examples are the same
    return Dataset(
        name=spec.name,
        train=train,
        val=val,
        test=test,
        task=means.fitted(train.targets),
        modality=prepared_by,
        fingerprint=_fingerprint(prepared_by, source, (spec.name, source.digest), splits, spec.exclude),
        layout=_fingerprint(prepared_by, source, (spec.name, source.names or source.digest), splits),
    )


def _check_columns(spec: recipe.Data, source: Source) -> None:
    if spec.columns and spec.columns != source.columns:
        raise RecipeError(
            f"data.columns is [{', '.join(spec.columns)}], which the data set '{spec.name}' does not follow: "
            + (f"it reads {', '.join(source.columns)}." if source.columns else "its examples have no columns."),
            allowed="data.columns for data sets of your own texts or tables, such as texts, table and table_numbers",
            next_step="leave data.columns out",
        )


def _check_task(spec: recipe.Data, source: Source, task: recipe.TaskSection) -> recipe.TaskSection:
    if task.name != source.task:
        raise RecipeError(
            f"The recipe's task is '{task.name}', and the targets of the data set '{spec.name}' are those of "
            f"'{source.task}'.",
            allowed=source.task,
            next_step=f"--set task={source.task}, or choose another data set: sdcompress list data",
        )
    return task


def _prepared(source: Source, modality: Modality) -> Source:
    """Return the source with the examples that a modality makes of its raw ones."""

    def made(samples: Samples) -> Samples:
        return samples.prepared_by(modality) if isinstance(samples, RawSamples) else samples

    val, test = (None if samples is None else made(samples) for samples in (source.val, source.test))
    return replace(source, train=made(source.train), val=val, test=test)


def _split(spec: recipe.Data, source: Source, seed: int, task: Task) -> dict[str, _SplitSamples]:
    train = _all(source.train, source, "train", task)
    if source.test is not None:
        test = _all(source.test, source, "test", task)
    else:
        train, test = train.hold_out(round(_TEST_SHARE * len(train.indices)), *_TEST_SEED)
    if source.val is not None:
        val = _all(source.val, source, "val", task)
    else:
        train, val = train.hold_out(round(spec.validation * len(train.indices)), seed, _VALIDATION)
    if spec.train_limit is not None:
        _, train = train.hold_out(spec.train_limit, seed, _TRAIN_LIMIT)
    if spec.train_per_stratum is not None:
        train = train.of_each_stratum(spec.train_per_stratum, seed, _TRAIN_LIMIT)
    if spec.test_limit is not None:
        _, test = test.hold_out(spec.test_limit, seed, _TEST_LIMIT)
    return {"train": train, "validation": val, "test": test}


def _all(samples: Samples, source: Source, split: str, task: Task) -> _SplitSamples:
    excluded = np.array(sorted(source.left_out.get(split, ())), np.int64)
    return _SplitSamples(samples, task, np.arange(len(samples)), excluded)


def _check(name: str, split: str, source: Source, task: Task, modality: Modality) -> None:
    samples, shown = getattr(source, split), "validation" if split == "val" else split
    if samples is None:
        return
    if len(samples) == 0:
        raise DataError(
            f"The {shown} split of '{name}' holds no sample.", next_step="check the folder that the data lie in"
        )
    excluded = source.left_out.get(split, ())
    first = next((position for position in range(len(samples)) if position not in excluded), 0)
    example = samples.examples(np.array([first]))
    try:
        task.check_targets(samples.targets)
        modality.collate(example)
    except (DataError, InputError) as error:
        raise DataError(
            f"The {shown} split of '{name}' cannot be used: {error.problem}",
            allowed=error.allowed,
            next_step=error.next_step,
        ) from error


def _fingerprint(
    modality: Modality,
    source: Source,
    named: tuple[str, str],
    splits: dict[str, _SplitSamples],
    without: tuple[str, ...] = (),
) -> str:
    digest, (name, content) = hashlib.sha256(), named
    for text in (name, *source.outputs, modality.fingerprint_text, content, *sorted(without)):
        digest.update(text.encode() + b"\0")
    for split, samples in splits.items():
        targets = samples.targets
        digest.update(split.encode() + b"\0")
        digest.update(
            samples.indices.astype("<i8").tobytes() + targets.astype(targets.dtype.newbyteorder("<")).tobytes()
        )
    return digest.hexdigest()
