"""Run all steps of a recipe in one folder; skip steps whose inputs have not changed.

runs/NAME/recipe.yaml           the resolved recipe
          train/<method>/       checkpoints, metrics.jsonl, TensorBoard
          artifacts/<method>-…  exported, partitioned, quantised, calibrated
          evaluations/….json    every checkpoint and artifact, on validation and test
          bench.json            latency of all artifacts
          report/               report.json, report.md, report.html
          steps.json            hashes of the inputs of each finished step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import sdcompress
from sdcompress import methods, recipes
from sdcompress.checkpoint import newest, read_metrics
from sdcompress.errors import requires_extra
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.options import Options
from sdcompress.pipeline.preflight import check_data, check_recipe
from sdcompress.pipeline.steps import Record, Step, StepProgress, no_step_progress
from sdcompress.progress import Progress
from sdcompress.reporting.read import read_result
from sdcompress.schema import recipe as schema
from sdcompress.schema.report import BenchRecord, BenchReport, Evaluation, Report
from sdcompress.storage import locked_folder, write_text
from sdcompress.verbs._types import RecipeLike
from sdcompress.verbs.export import export_all

__all__ = ["run"]

_MEASURE_AGAIN = "remove that file and run again: it is measured again"

SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def run(
    recipe: RecipeLike,
    out: Path | str | None = None,
    settings: recipes.Settings = (),
    *,
    command: str = "",
    overwrite: bool = False,
    step_progress: StepProgress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Report:
    """Run all steps of a recipe: train it and its controls, export, calibrate, evaluate, bench, report.

    A run that was stopped continues where it stopped.

    Args:
        recipe: a YAML file, a shipped recipe's name, a mapping or a ``Recipe``.
        out: folder of the run; default ``runs/<name>``.
        settings: ``{"section.key": value}``, or a list of ``section.key=value``, on top of the recipe.
        command: the command that the user typed, for the records.
        overwrite: replace training runs of other recipes.
        step_progress: shows the progress of each step.
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before a training's first step.

    Returns:
        The report, which is also written to ``out/report``.

    Raises:
        RecipeError: if the recipe is not valid, or the method is its own control, with other parameters.
        UsageError: if another process runs in the folder.
        SdcompressError: the errors of the verbs; all finished steps are kept.
    """
    checked = recipes.read(recipe, settings)
    folder = Path(out) if out is not None else Path("runs") / checked.name
    step_progress = step_progress or no_step_progress
    check_recipe(checked)
    options = Options(data_dir=checked.data.dir, download=checked.data.download, command=command)
    state, record = _Run(checked, folder, options, overwrite, on_epoch, on_start), Record(folder / "steps.json")
    if state.trains_anew:
        with step_progress("check the data") as progress:
            check_data(checked, options.datasets, progress)
    with locked_folder(folder):
        for step in state.steps():
            record.run(step, step_progress)
    return state.result


@dataclass
class _Run:
    """The steps of a run, and their results so far."""

    recipe: schema.Recipe
    out: Path
    options: Options
    overwrite: bool
    on_epoch: Callable[[dict[str, float]], None] | None
    on_start: Callable[[str], None] | None
    checkpoints: dict[str, TrainedModel] = field(default_factory=dict)
    artifacts: dict[str, TrainedModel] = field(default_factory=dict)
    _reports: list[Report] = field(default_factory=list)

    @property
    def result(self) -> Report:
        """Return the report, once the steps are done."""
        return self._reports[-1]

    @property
    def trains_anew(self) -> bool:
        """Return whether a training begins: there is none in its folder, or it is replaced."""
        return any(newest(self._training(spec)[1]) is None or self._replaces(spec) for spec in self._methods())

    def steps(self) -> Iterator[Step]:
        """Yield all steps in order; a step is defined when those before it are finished, because it depends on them."""
        for spec in self._methods():
            yield Step(f"train {spec.name}", partial(self._train, spec))
        # only now, because training refuses a folder that holds a run of another recipe
        write_text(self.out / "recipe.yaml", recipes.dump(self.recipe))
        for spec in self._methods():
            yield from self._make_artifacts(spec)
        evaluated = {**self.checkpoints, **self.artifacts}
        files = [self._evaluation_file(name, split) for name in evaluated for split in SPLITS]
        for name, model in evaluated.items():
            yield from self._evaluate(name, model)
        yield self._bench()
        yield Step("report", partial(self._report, [path for path in files if path.exists()]))

    def _methods(self) -> tuple[schema.MethodSection, ...]:
        """Return the controls and then the method, each once."""
        return (*(control for control in self.recipe.controls if control != self.recipe.method), self.recipe.method)

    def _train(self, spec: schema.MethodSection, progress: Progress) -> None:
        """Train one method, or resume its training, which keeps its own record of its inputs."""
        recipe, folder = self._training(spec)
        checkpoint = sdcompress.train(
            recipe,
            folder,
            overwrite=self._replaces(spec),
            progress=progress,
            on_epoch=self.on_epoch,
            on_start=self.on_start,
            checked=True,
            load=self.options.datasets,
        )
        self.checkpoints[spec.name] = open_trained_model(checkpoint, self.options)

    def _training(self, spec: schema.MethodSection) -> tuple[schema.Recipe, Path]:
        """Return the recipe of one method's training, and its folder."""
        return self.recipe.model_copy(update={"method": spec, "controls": ()}), self.out / "train" / spec.name

    def _replaces(self, spec: schema.MethodSection) -> bool:
        """Return whether one method's training replaces that of another recipe."""
        with requires_extra("train"):
            from sdcompress.training.run import holds_another  # torch

        return self.overwrite and holds_another(*self._training(spec))

    def _make_artifacts(self, spec: schema.MethodSection) -> Iterator[Step]:
        """Yield the artifacts of one method that are measured: as exported, then in each precision."""
        targets = self._targets(spec)
        yield self._export(spec, targets)
        for precision in ("", *self.recipe.quantize.precisions):
            for target in targets:
                exported = model = self._open(target.out)
                if precision:
                    out = target.out.with_name(f"{target.out.name}-{precision}")
                    yield self._quantize(exported, out, precision)
                    model = self._open(out)
                if target.layout == "cascade":
                    out = target.out.with_name(f"{spec.name}-early-exit{f'-{precision}' if precision else ''}")
                    # with a certificate, the drop includes what the precision costs
                    reference = exported if precision and self.recipe.calibrate.confidence is not None else None
                    yield self._calibrate(model, out, reference)
                    model = self._open(out)
                self.artifacts[model.path.name] = model

    def _targets(self, spec: schema.MethodSection) -> list[ExportSpec]:
        """Return the artifacts to make of one method's network: truncated ones, then the other layouts."""
        folder, settings = self.out / "artifacts", self.recipe.export
        exits = spec == self.recipe.method and methods.build(spec).needs.exits
        # a control serves for comparison: its whole network is enough
        singles = (settings.truncate_at if "single" in settings.layouts else ()) if exits else ("final",)
        targets = [ExportSpec(folder / f"{spec.name}-{name}", "single", name) for name in singles]
        return targets + [
            ExportSpec(folder / f"{spec.name}-{layout}", layout, exits=settings.keep_exits)
            for layout in settings.layouts
            if exits and layout != "single"
        ]

    def _export(self, spec: schema.MethodSection, targets: list[ExportSpec]) -> Step:
        checkpoint, settings = self.checkpoints[spec.name], self.recipe.export

        def work(progress: Progress) -> None:
            options = replace(self.options, threads=self.recipe.train.threads, progress=progress)
            export_all(checkpoint, targets, settings, options, overwrite=True)

        outputs = tuple(target.out for target in targets)
        inputs = [checkpoint.digest, settings.model_dump(mode="json"), sorted(path.name for path in outputs)]
        return Step(f"export {spec.name}", work, inputs, outputs)

    def _quantize(self, model: TrainedModel, out: Path, precision: str) -> Step:
        def work(progress: Progress) -> None:
            options = self._measuring(progress)
            sdcompress.quantize(model, out, precision, self.recipe.quantize, options, overwrite=True)

        settings = self.recipe.quantize
        return Step(
            f"quantize {out.name}", work, [model.digest, settings.max_drop, settings.calibration_samples], (out,)
        )

    def _calibrate(self, model: TrainedModel, out: Path, reference: TrainedModel | None) -> Step:
        def work(progress: Progress) -> None:
            other = None if reference is None else reference.artifact()
            settings, options = self.recipe.calibrate, self._measuring(progress)
            sdcompress.calibrate(model, out, settings, options, reference=other, overwrite=True)

        digests = [one.digest for one in (model, reference) if one]
        inputs = [*digests, self.recipe.calibrate.model_dump(mode="json"), self.recipe.bench.threads]
        return Step(f"calibrate {model.path.name}", work, inputs, (out,))

    def _evaluate(self, name: str, model: TrainedModel) -> Iterator[Step]:
        """Evaluate a model on both splits; an empty validation split is skipped."""
        for split in SPLITS:
            path = self._evaluation_file(name, split)
            may_be_empty = split == "validation" and (not path.exists() or self.recipe.data.validation == 0)
            if may_be_empty and len(model.dataset().val) == 0:
                path.unlink(missing_ok=True)  # of a recipe before that held samples out
                continue

            def work(progress: Progress, split: Literal["validation", "test"] = split, path: Path = path) -> None:
                scores = sdcompress.evaluate(model, self._measuring(progress), split=split, name=name)
                write_text(path, scores.model_dump_json(indent=1))

            # an earlier version recorded fewer fields
            yield Step(f"evaluate {name} on {split}", work, [model.digest, sorted(Evaluation.model_fields)], (path,))

    def _evaluation_file(self, name: str, split: str) -> Path:
        return self.out / "evaluations" / f"{name}-{split}.json"

    def _bench(self) -> Step:
        """Measure all artifacts in interleaved rounds on test samples."""
        path, settings = self.out / "bench.json", self.recipe.bench

        def work(progress: Progress) -> None:
            names, options = list(self.artifacts), replace(self.options, progress=progress)
            measured = sdcompress.bench(
                list(self.artifacts.values()), settings, options, names=names, reference=self._reference()
            )
            write_text(path, measured.model_dump_json(indent=1))

        digests = {name: model.digest for name, model in self.artifacts.items()}
        # an earlier version recorded fewer fields
        inputs = [digests, settings.model_dump(mode="json"), self._reference(), sorted(BenchRecord.model_fields)]
        return Step("bench", work, inputs, (path,))

    def _report(self, evaluations: list[Path], progress: Progress) -> None:
        """Write the report, every time."""
        progress(0, 1)
        report = sdcompress.report(
            {name: model.artifact() for name, model in self.artifacts.items()},
            self.out / "report",
            self.options,
            evaluations=[read_result(path, Evaluation, _MEASURE_AGAIN) for path in evaluations],
            benches=[read_result(self.out / "bench.json", BenchReport, _MEASURE_AGAIN)],
            title=self.recipe.name,
            reference=self._reference(),
            recipe=self.recipe,
            training={spec.name: read_metrics(self.out / "train" / spec.name) for spec in self._methods()},
            overwrite=True,
        )
        progress(1, 1)
        self._reports.append(report)

    def _reference(self) -> str | None:
        """Return the reference of all comparisons: the network of the first control."""
        first, *others = self._methods()
        return f"{first.name}-final" if others else None

    def _open(self, path: Path) -> TrainedModel:
        return open_trained_model(path, self.options)

    def _measuring(self, progress: Progress) -> Options:
        return replace(self.options, threads=self.recipe.bench.threads, progress=progress)
