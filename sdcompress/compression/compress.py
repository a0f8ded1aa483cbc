"""compress: search the fastest way to deploy a network that keeps its metric, or the best that is fast enough."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress import recipes
from sdcompress.artifact.execution_target import one_graph_agrees
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.candidate import bench_samples
from sdcompress.benchmarking.run import bench
from sdcompress.calibration.calibrate import check
from sdcompress.calibration.guarantee import split_of
from sdcompress.certification.calibration_split import CalibrationSplit, draw_split, seed_of, tuning_count
from sdcompress.certification.certify import bonferroni_delta, excess_losses, kind_of_test, p_value_of
from sdcompress.compression.best import BEST, best_of, write_best
from sdcompress.compression.candidates import DROPS, FLOAT, Budget, Outcomes, candidates, finalists
from sdcompress.compression.estimates import ESTIMATES, kept_candidates, retire_estimates, searches_in
from sdcompress.compression.outcomes import outcomes_of
from sdcompress.compression.parts import FINALISTS, PARTS, Parts, labels_of
from sdcompress.data.samples import Dataset, Samples, Subset
from sdcompress.errors import SetupError, UsageError, VerificationError
from sdcompress.evaluation.exit_outcomes import exit_outcomes
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.machine import check_threads, machine, processor
from sdcompress.options import Options
from sdcompress.pipeline.steps import Record, StepProgress, no_step_progress
from sdcompress.policies import check_task, policy_class
from sdcompress.quantizing.quantize import precision_of
from sdcompress.reporting.write import check_ready, write
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import USUAL, open_engine
from sdcompress.schema.compression import Candidate, Compression, Finalist, SearchedSource
from sdcompress.schema.recipe import Calibrate
from sdcompress.schema.recipe_compression import Compress
from sdcompress.schema.report import BenchReport
from sdcompress.storage import clear_leftovers, locked_folder, make_room
from sdcompress.tasks import metric_of
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["compress"]

State = Literal["certified", "not certified", "failed"]
Losses = npt.NDArray[np.float32]
Differences = npt.NDArray[np.float64]
_STEPS = "steps.json"
_MERGED = 3  # cascades that are tried as one graph: which form of which is fastest, only a measurement says
_ATTEMPTS = 3  # drops at which a finalist is tested where a time is the target; each costs confidence
_FILES = {BEST, PARTS, FINALISTS, ESTIMATES, _STEPS, "compress.json", "compress.md", "compress.html"}


def compress(
    sources: Sequence[Source] | Source,
    out: Folder,
    settings: Compress | Overrides | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
    step_progress: StepProgress | None = None,
) -> Compression:
    """Search the best artifact of checkpoints: truncated where, which exits, as ensembles, which precision and policy.

    All candidates are estimated from measured stage times and from the outputs of all exits on a sixth of the
    validation samples. The best are built, certified on the others with a shared confidence, and measured in
    interleaved rounds. Writes ``best``, the artifact; compress.json, .md and .html; and the artifacts of all finalists.
    A search that was stopped continues with what is built.

    Args:
        sources: checkpoints of one data set, for example a network before and after pruning. The drop is counted from
            the first, whole and in float32.
        out: folder of the search.
        settings: largest drop or largest milliseconds, confidence, precisions, policies, ensembles, finalists.
        options: folder of the data, and the threads (default: one) of all times.
        overwrite: throw away another search in ``out``.
        step_progress: shows the progress of each step.

    Returns:
        What was tried; its ``best`` is None if nothing beats the reference or meets the target.

    Raises:
        UsageError: if a source is an artifact, sources differ in data or task, or there are too many threads.
        UnknownNameError: if there is no such precision or policy.
        DataError: if there are too few validation samples to certify anything.
        OutputExistsError: if ``out`` holds other things than a search.
        MissingExtraError: if the extra 'export', 'quantize' or 'report' is not installed.
    """
    options = options or Options()
    options = replace(options, threads=options.threads or 1)
    given = sources if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    models = [open_trained_model(source, options) for source in given]
    _check_sources(models)
    section = _merged(models[0].recipe.compress, settings)
    _warn_of_groups(models[0].recipe.calibrate)
    for precision in section.precisions:
        precision_of(precision)
    for policy in section.policies:
        policy_class(policy)
    folder = Path(out)
    check_ready(Compression, folder, overwrite=True)
    check_threads(options.threads or 1)
    models[0].dataset()  # before an old search is thrown away; it stays in memory
    with locked_folder(folder):
        clear_leftovers(folder / BEST)
        make_room(folder, _FILES, overwrite=overwrite, kept={ESTIMATES})
        if overwrite:
            retire_estimates(folder)
        search = _Search(models, section, folder, options, step_progress or no_step_progress)
        record = search.run()
        write_best(folder, record.winner)
        write(record, folder, overwrite=True)
    return record


def _merged(section: Compress, settings: Compress | Overrides | None) -> Compress:
    """Return a recipe's settings with overrides; a drop that is given takes the place of the recipe's target."""
    if isinstance(settings, Mapping) and settings.get("max_drop") is not None:
        settings = {"target_ms": None, **settings}
    return recipes.override(section, settings)


def _warn_of_groups(calibrate: Calibrate) -> None:
    """Say that a drop that the recipe wants in every group is not certified so."""
    if calibrate.group_by is not None:
        warnings.warn(
            f"The drop is certified over all samples: calibrate.group_by='{calibrate.group_by}' of the recipe is left "
            "out. To certify it in every group, calibrate a cascade that was not chosen on the validation split: "
            f"sdcompress calibrate ARTIFACT --group-by {calibrate.group_by}",
            stacklevel=3,
        )


def _check_sources(models: Sequence[TrainedModel]) -> None:
    if not models:
        raise UsageError("No checkpoint was given.", next_step="name the folder of a training")
    first = models[0]
    for model in models:
        if model.kind == "artifact":
            raise UsageError(
                f"'{model.path}' is an artifact.",
                allowed="checkpoints, because other exits and precisions are exported from them",
                next_step="name the folder of its training",
            )
        if model.data_fingerprint != first.data_fingerprint or model.opened.task != first.opened.task:
            raise UsageError(
                f"'{model.path}' was trained on other data, or for another task, than '{first.path}'.",
                allowed="checkpoints with the same data, seed of its splits and task",
                next_step="search them one by one",
            )


@dataclass
class _Search:
    """A search under way; see ``compress`` for the arguments."""

    models: Sequence[TrainedModel]
    settings: Compress
    folder: Path
    options: Options
    step_progress: StepProgress

    def run(self) -> Compression:
        """Estimate, build, certify and measure."""
        ranked = self._ranked()
        rivals = [one for one in ranked if not self._is_reference(one)]  # it is measured beside them anyway
        chosen = finalists(rivals, self.settings.finalists)
        for source in range(len(self.models)):
            self._parts.exported(source, [one.exits for one in chosen if one.source == source and not one.ensemble])
        built = [self._best_drop(one) for one in chosen]
        built += self._one_graphs(built)
        measured = self._bench([one for one in built if one.state == "certified"])
        record = Compression(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self.options.command,
            data=self._data.name,
            metric_name=self._data.task.metric,
            settings=self.settings,
            sources=tuple(
                SearchedSource(path=str(model.path), weights=model.digest, exits=exits)
                for model, exits in zip(self.models, self._exits, strict=True)
            ),
            search_samples=len(self._search_samples),
            certify_samples=len(self._certify_samples),
            delta=self._delta,
            searches=searches_in(self.folder),
            reference=self._reference.path.name,
            reference_metric=metric_of(self._reference_losses),
            candidates=tuple(ranked),
            finalists=tuple(built),
            bench=measured,
            machine=machine(),
        )
        return record.model_copy(update={"best": best_of(record)})

    def _ranked(self) -> list[Candidate]:
        """Return all candidates, the best first; those of this search before, if it was begun before."""
        networks = list(self._networks())

        def estimated() -> list[Candidate]:
            outcomes = [self._outcomes(*network) for network in networks]
            return candidates(outcomes, outcomes[0].loss[-1], self._policies(), self._budget)

        inputs = {
            "settings": self.settings.model_dump(mode="json"),
            "policies": self._policies(),
            "data": self.models[0].data_fingerprint,
            "sources": [(label, model.digest) for label, model in zip(self._parts.labels, self.models, strict=True)],
            "networks": [(source, precision) for source, precision, *_ in networks],
            "threads": self.options.threads,
            "processor": processor(),
        }
        return kept_candidates(self.folder, inputs, estimated)

    @cached_property
    def _parts(self) -> Parts:
        labels = list(labels_of(self.models))
        return Parts(self.folder, self.models, labels, self.options, Record(self.folder / _STEPS), self.step_progress)

    @cached_property
    def _data(self) -> Dataset:
        return self.models[0].dataset()

    @cached_property
    def _rows(self) -> CalibrationSplit:
        """Return rows of the validation split: those of the search, and those that certify."""
        # the same data gives the same split, so that nobody can draw splits until a test passes
        return draw_split(len(self._data.split("validation")), seed_of(self.models[0].data_fingerprint, "compress"))

    @cached_property
    def _search_samples(self) -> Samples:
        return Subset(self._data.val, self._rows.tuning)

    @cached_property
    def _certify_samples(self) -> Samples:
        return Subset(self._data.val, self._rows.certify)

    @cached_property
    def _delta(self) -> float:
        """Return the level of each test, with which the confidence holds for whichever finalist is best."""
        attempts = 1 if self.settings.target_ms is None else _ATTEMPTS
        return bonferroni_delta(self.settings.confidence, attempts * self.settings.finalists)

    @cached_property
    def _budget(self) -> Budget:
        target = self.settings.target_ms
        return Budget(
            drops=(self.settings.max_drop,) if target is None else DROPS,
            target_ms=target,
            delta=self._delta,
            certify_samples=len(self._certify_samples) - tuning_count(len(self._certify_samples)),
        )

    @cached_property
    def _exits(self) -> list[tuple[str, ...]]:
        trust = self.options.trust_modules
        return [tuple(model.checkpoint().network(trust_modules=trust).exit_names) for model in self.models]

    @cached_property
    def _reference(self) -> Artifact:
        """Return the first source, whole, in float32."""
        return self._parts.part(0, self._exits[0][-1:], FLOAT)

    def _is_reference(self, one: Candidate) -> bool:
        return (one.source, one.exits, one.precision) == (0, self._exits[0][-1:], FLOAT)

    def _policies(self) -> tuple[str, ...]:
        chosen = self.settings.policies or (self.models[0].recipe.calibrate.policy,)
        for policy in chosen:
            check_task(policy, self._data.task)
        return chosen

    def _networks(self) -> Iterator[tuple[int, str, Artifact, Artifact]]:
        """Build every source in every precision, whole and as a cascade; one that fails is left out with a warning."""
        for source, exits in enumerate(self._exits):
            whole, cascade = exits[-1:], exits
            self._parts.exported(source, [whole, cascade])
            if source == 0 and len(exits) > 1:
                check(self._parts.part(0, cascade, FLOAT), self._certify_samples, self._calibration())
            for precision in (FLOAT, *self.settings.precisions):
                try:
                    network, all_exits = (self._parts.part(source, kept, precision) for kept in (whole, cascade))
                except (VerificationError, SetupError, UsageError) as error:
                    warnings.warn(f"{precision} is left out: {error.problem}", stacklevel=2)
                    continue
                yield source, precision, network, all_exits

    def _calibration(self) -> Calibrate:
        drop = self._budget.drops[-1]
        return Calibrate(policy=self._policies()[0], max_drop=drop, confidence=1 - self._delta)

    def _outcomes(self, source: int, precision: str, whole: Artifact, cascade: Artifact) -> Outcomes:
        with self.step_progress(f"estimate {cascade.path.name}") as progress:
            return outcomes_of(
                self._open(cascade),
                self._open(whole),
                self._search_samples,
                source=source,
                label=self._parts.labels[source],
                precision=precision,
                policies=self._policies(),
                ensembles=self.settings.ensembles,
                threads=self.options.threads or 1,
                progress=progress,
            )

    def _open(self, artifact: Artifact) -> Engine:
        return open_engine(artifact, threads=self.options.threads, allow_uncertified=True)

    def _losses(self, artifact: Artifact, samples: Samples) -> Losses:
        """Return the losses of the last exit, float32 [N]."""
        return np.asarray(exit_outcomes(self._open(artifact), samples).loss[-1])

    @cached_property
    def _reference_losses(self) -> Losses:
        return self._losses(self._reference, self._certify_samples)

    def _best_drop(self, one: Candidate) -> Finalist:
        """Build a candidate, and where its drop is not certified, with the next larger drops; see ``_ATTEMPTS``."""
        larger = [drop for drop in self._budget.drops if drop >= one.max_drop][:_ATTEMPTS]
        for drop in larger:
            built = self._build(one.model_copy(update={"max_drop": drop}))
            if built.state == "certified":
                break
        return built

    def _build(self, one: Candidate) -> Finalist:
        """Build a candidate and test its drop."""
        try:
            if one.layout == "cascade":
                return self._build_cascade(one)
            artifact = self._parts.part(one.source, one.exits, one.precision)
        except (VerificationError, SetupError, UsageError) as error:
            return Finalist(candidate=one, state="failed", reason=str(error.problem))
        order = np.concatenate(split_of(artifact.manifest, self._certify_samples)[0])
        with self.step_progress(f"test {one.name}"):
            differences = np.subtract(
                self._losses(artifact, self._certify_samples), self._reference_losses, dtype=np.float64
            )[order]
        test = kind_of_test(unlabelled=False, binary_loss=self._data.task.binary_loss)
        p_value = p_value_of(test, differences, one.max_drop, self._delta)
        state: State = "certified" if p_value <= self._delta else "not certified"
        return self._finalist(one, artifact, state, differences, p_value)

    def _build_cascade(self, one: Candidate) -> Finalist:
        # its last exit is the reference, which that of an ensemble or of a truncated network is not
        whole = one.exits[-1] == self._exits[one.source][-1]
        own = whole and one.source == 0 and one.precision == FLOAT and one.ensemble is None
        reference, joint = None if own else self._reference, self.settings.confidence
        artifact = self._parts.calibrated(
            one, 1 - self._delta, self._certify_samples, reference, joint_confidence=joint
        )
        policy, evidence = artifact.manifest.policy, artifact.evidence()
        assert policy is not None
        state: State = "certified" if policy.guarantee == "certified" else "not certified"
        return self._finalist(one, artifact, state, excess_losses(evidence, policy.thresholds), None)

    def _one_graphs(self, built: Sequence[Finalist]) -> list[Finalist]:
        """Return the fastest certified cascades as one graph each, the fastest first.

        It predicts as its segments do, which the export checks on samples. So it has no test of its own.
        """
        early: list[tuple[float, Finalist, Artifact]] = []
        for one in built:
            if one.state == "certified" and one.candidate.layout == "cascade":
                cascade = open_artifact(self.folder / str(one.folder))
                policy = cascade.manifest.policy
                if policy is not None and policy.exits_early:
                    early.append((policy.mean_ms, one, cascade))
        return [self._one_graph(one, cascade) for _, one, cascade in sorted(early, key=itemgetter(0))[:_MERGED]]

    def _one_graph(self, one: Finalist, cascade: Artifact) -> Finalist:
        """Return a finalist as one graph, in the layout of one sample at a time, as all are measured."""
        name = one.candidate.name
        candidate = one.candidate.model_copy(update={"name": f"{name}-if", "layout": "if", "merged_from": name})
        try:
            artifact = self._parts.one_graph(cascade)
        except (VerificationError, UsageError) as error:
            return Finalist(candidate=candidate, state="failed", reason=str(error.problem))
        folder = artifact.path.relative_to(self.folder).as_posix()
        entry = artifact.manifest.one_graph
        assert entry is not None
        update = {"folder": folder, "digest": artifact.manifest.digest, "bytes": entry.bytes}
        reason = ""  # why the segments would run in its place, also in the best
        if not entry.is_faster_on(processor()[0]):
            reason = "its segments are faster"
        elif not one_graph_agrees(artifact.manifest):
            reason = "its certificate covers the segments, and the graph rounds otherwise"
        if reason:
            update |= {"state": "failed", "reason": reason}
        return one.model_copy(update={"candidate": candidate, **update})

    def _finalist(
        self, one: Candidate, artifact: Artifact, state: State, differences: Differences, p_value: float | None
    ) -> Finalist:
        return Finalist(
            candidate=one,
            state=state,
            folder=artifact.path.relative_to(self.folder).as_posix(),
            digest=artifact.manifest.digest,
            drop=float(differences.mean()),
            p_value=p_value,
            bytes=sum(artifact.file(segment).stat().st_size for segment in artifact.manifest.segments),
        )

    def _bench(self, certified: Sequence[Finalist]) -> BenchReport:
        """Measure the reference and all certified finalists in interleaved rounds, on the search samples."""
        section = self.models[0].recipe.bench.model_copy(
            update={
                "scenarios": ("single-stream",),
                "threads": self.options.threads or 1,
                "backend": USUAL,
                "device": "cpu",
                "clock": "wall",  # as the estimates and a target are
            }
        )
        examples, _ = bench_samples(self._search_samples)
        with self.step_progress("bench") as progress:
            return bench(
                [self._reference, *(self.folder / str(one.folder) for one in certified)],
                examples=examples,
                settings=section,
                names=[self._reference.path.name, *(one.candidate.name for one in certified)],
                source=f"validation split of {self._data.name}",
                command=self.options.command,
                progress=progress,
            )
