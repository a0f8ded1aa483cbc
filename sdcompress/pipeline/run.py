"""The whole way of a recipe in one folder; what is done and still fits is not done again.

runs/NAME/recipe.yaml           the resolved recipe
          train/<method>/       checkpoints, metrics.jsonl, TensorBoard
          artifacts/<method>-…  exported, cut, quantised, calibrated
          evaluations/….json    every checkpoint and artifact, on validation and test
          bench.json            latency of all artifacts in turn
          report/               report.json, report.md, report.html
          steps.json            what went into each finished step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdcompress import methods, recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.candidate import bench_originals, bench_samples
from sdcompress.benchmarking.run import bench
from sdcompress.calibration.calibrate import calibrate
from sdcompress.checkpoint import Checkpoint, newest, read_metrics
from sdcompress.data.samples import Dataset
from sdcompress.errors import requires_extra
from sdcompress.evaluation.evaluate import evaluate
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.machine import default_threads
from sdcompress.pipeline.preflight import check_data, check_recipe
from sdcompress.pipeline.steps import Steps
from sdcompress.reporting.build import build
from sdcompress.reporting.read import read_result
from sdcompress.reporting.write import write
from sdcompress.schema import recipe as schema
from sdcompress.schema.report import BenchRecord, BenchReport, Evaluation, Report
from sdcompress.storage import locked_folder, write_text

if TYPE_CHECKING:
    from sdcompress.exporting.export import Target

__all__ = ["Stage", "run"]

Progress = Callable[[int, int], None]
Stage = Callable[[str], AbstractContextManager[Progress]]
"""Called with what begins; gives what is told (done, all) while it lasts."""

_AGAIN = "remove that file and run again: it is measured again"

SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def run(
    recipe: schema.Recipe,
    out: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    stage: Stage | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Report:
    """Train, export, calibrate, evaluate, measure and report; started again, go on where it stopped.

    Args:
        recipe: the method and the controls to compare it with.
        out: folder of the run.
        command: what the user typed, for the report.
        overwrite: throw away training runs of other recipes that are there.
        stage: shows what goes on.
        on_epoch: called with the metrics of each epoch.
        on_start: called with a sentence about threads and device before a training's first step.

    Returns:
        The report, which is also written to ``out/report``.

    Raises:
        RecipeError: if the method is its own control, with other parameters: results go by the method's name.
        UsageError: if another process runs in the folder.
        SdcompressError: what each verb raises; all finished steps are kept.
    """
    check_recipe(recipe)
    job = _Job(recipe, out, command, overwrite, stage or _silent, on_epoch, on_start)
    if newest(out / "train" / recipe.method.name) is None:
        with job.stage("check the data") as progress:
            check_data(recipe, progress)
    with locked_folder(out):
        return job.run()


@dataclass
class _Job:
    """One run under way."""

    recipe: schema.Recipe
    out: Path
    command: str
    overwrite: bool
    stage: Stage
    on_epoch: Callable[[dict[str, float]], None] | None
    on_start: Callable[[str], None] | None
    _dataset: Dataset | None = field(default=None)

    def run(self) -> Report:
        """All steps in their order."""
        checkpoints = {spec.name: self.train(spec) for spec in self.methods}
        # only now: training refuses a folder that holds a run of another recipe
        write_text(self.out / "recipe.yaml", recipes.dump(self.recipe))
        artifacts = {n: path for spec in self.methods for n, path in self.artifacts(spec, checkpoints[spec.name])}
        reference = f"{self.methods[0].name}-final" if len(self.methods) > 1 else None
        evaluations = self.evaluate({**{name: done.path for name, done in checkpoints.items()}, **artifacts})
        measured = self.bench(artifacts, reference)
        return self.report(artifacts, evaluations, measured, reference)

    @property
    def methods(self) -> tuple[schema.Method, ...]:
        """The controls and then the method, each once."""
        return (*(control for control in self.recipe.controls if control != self.recipe.method), self.recipe.method)

    @property
    def steps(self) -> Steps:
        return Steps(self.out / "steps.json")

    def train(self, spec: schema.Method) -> Checkpoint:
        """Train one method, or go on; training keeps its own record of what it was given."""
        with requires_extra("train"):
            from sdcompress.training.run import holds_another, train  # torch

        recipe, folder = self.recipe.model_copy(update={"method": spec, "controls": ()}), self.out / "train" / spec.name
        with self.stage(f"train {spec.name}") as progress:
            return train(
                recipe,
                folder,
                overwrite=self.overwrite and holds_another(recipe, folder),
                on_step=progress,
                on_epoch=self.on_epoch,
                on_start=self.on_start,
                checked=True,
            )

    def artifacts(self, spec: schema.Method, checkpoint: Checkpoint) -> Iterator[tuple[str, Path]]:
        """The artifacts of one method that are measured, by name: as exported, then in each precision."""
        exported = self.export(spec, checkpoint)
        for precision in ("", *self.recipe.quantize.precisions):
            for target in exported:
                made = self.quantize(target.out, precision) if precision else target.out
                if target.layout == "cascade":
                    ending = f"-{precision}" if precision else ""
                    # where there is a certificate, what the precision costs counts as lost too
                    reference = target.out if precision and self.recipe.calibrate.confidence is not None else None
                    made = self.calibrate(made, made.with_name(f"{spec.name}-early-exit{ending}"), reference=reference)
                yield made.name, made

    def export(self, spec: schema.Method, checkpoint: Checkpoint) -> list[Target]:
        """What one method's network becomes: pruned networks, then the other layouts."""
        with requires_extra("export"):
            from sdcompress.exporting.export import Target, export_all  # torch, onnx
            from sdcompress.models.threads import torch_threads

        folder, settings = self.out / "artifacts", self.recipe.export
        own = spec == self.recipe.method and methods.build(spec).needs.exits
        # a control is there to be compared with: its whole network is enough
        singles = (settings.exits if "single" in settings.layouts else ()) if own else ("final",)
        targets = [Target(folder / f"{spec.name}-{name}", "single", name) for name in singles]
        targets += [
            Target(folder / f"{spec.name}-{layout}", layout, exits=settings.kept_exits)
            for layout in settings.layouts
            if own and layout != "single"
        ]
        names = sorted(target.out.name for target in targets)
        inputs = [checkpoint.weights_sha256, settings.model_dump(mode="json"), names]
        if not all(self.steps.fits(f"export {spec.name}", inputs, target.out) for target in targets):
            threads = self.recipe.train.threads or default_threads().threads
            with self.stage(f"export {spec.name}") as progress, torch_threads(threads):
                export_all(
                    checkpoint.path,
                    targets,
                    settings=settings,
                    data_dir=self.recipe.data.dir,
                    overwrite=True,
                    progress=progress,
                )
            self.steps.finish(f"export {spec.name}", inputs)
        return targets

    def quantize(self, path: Path, precision: str) -> Path:
        """The same in a lower precision."""
        with requires_extra("quantize"):
            from sdcompress.quantizing.quantize import quantize  # onnx

        out, settings = path.with_name(f"{path.name}-{precision}"), self.recipe.quantize
        inputs = [open_artifact(path).manifest.digest, settings.max_drop]
        if not self.steps.fits(f"quantize {out.name}", inputs, out):
            dataset = self.dataset(path)
            with self.stage(f"quantize {out.name}") as progress:
                quantize(
                    path, out, precision=precision, training=dataset.train, validation=dataset.split("validation"),
                    max_drop=settings.max_drop, threads=self.recipe.bench.threads, overwrite=True, progress=progress,
                )  # fmt: skip
            self.steps.finish(f"quantize {out.name}", inputs)
        return out

    def calibrate(self, cascade: Path, out: Path, *, reference: Path | None) -> Path:
        """Choose the thresholds of a cascade on the validation split."""
        digests = [open_artifact(path).manifest.digest for path in (cascade, reference) if path]
        inputs = [*digests, self.recipe.calibrate.model_dump(mode="json"), self.recipe.bench.threads]
        if not self.steps.fits(f"calibrate {cascade.name}", inputs, out):
            with self.stage(f"calibrate {cascade.name}") as progress:
                samples = self.dataset(cascade).split("validation")
                threads = self.recipe.bench.threads
                calibrate(
                    cascade, out, samples=samples, settings=self.recipe.calibrate, reference=reference,
                    threads=threads, overwrite=True, progress=progress,
                )  # fmt: skip
            self.steps.finish(f"calibrate {cascade.name}", inputs)
        return out

    def evaluate(self, folders: dict[str, Path]) -> tuple[Evaluation, ...]:
        """Score all checkpoints and artifacts on both splits; an empty validation split is passed over."""
        return tuple(
            found
            for name, folder in folders.items()
            for split in SPLITS
            if (found := self._evaluate(name, folder, split)) is not None
        )

    def _evaluate(self, name: str, folder: Path, split: Literal["validation", "test"]) -> Evaluation | None:
        trained = open_trained_model(folder)
        path = self.out / "evaluations" / f"{name}-{split}.json"
        inputs = [trained.digest, sorted(Evaluation.model_fields)]  # an earlier version's holds less
        if not self.steps.fits(path.name, inputs, path):
            dataset = self.dataset(folder)
            if split == "validation" and len(dataset.val) == 0:
                return None
            with self.stage(f"evaluate {name} on {split}") as progress:
                found = evaluate(
                    trained.engine(threads=self.recipe.bench.threads),
                    dataset.split(split),
                    kind=trained.kind,
                    name=name,
                    source=str(folder),
                    digest=trained.digest,
                    data=dataset.name,
                    split=split,
                    progress=progress,
                )
            write_text(path, found.model_dump_json(indent=1))
            self.steps.finish(path.name, inputs)
        return read_result(path, Evaluation, _AGAIN)

    def bench(self, artifacts: dict[str, Path], reference: str | None) -> BenchReport:
        """Measure all artifacts in turn on test images."""
        path, settings = self.out / "bench.json", self.recipe.bench
        digests = {name: open_artifact(folder).manifest.digest for name, folder in artifacts.items()}
        # an earlier version's record holds less
        inputs = [digests, settings.model_dump(mode="json"), reference, sorted(BenchRecord.model_fields)]
        if not self.steps.fits("bench", inputs, path):
            dataset = self.dataset(next(iter(artifacts.values())))
            with self.stage("bench") as progress:
                images, labels = bench_samples(dataset.test)
                measured = bench(
                    list(artifacts.values()),
                    images=images,
                    labels=labels,
                    originals=bench_originals(dataset.test),
                    settings=settings,
                    names=list(artifacts),
                    reference=reference,
                    source=f"test split of {dataset.name}",
                    command=self.command,
                    progress=progress,
                )
            write_text(path, measured.model_dump_json(indent=1))
            self.steps.finish("bench", inputs)
        return read_result(path, BenchReport, _AGAIN)

    def report(
        self,
        artifacts: dict[str, Path],
        evaluations: tuple[Evaluation, ...],
        measured: BenchReport,
        reference: str | None,
    ) -> Report:
        """Draw the report."""
        made = build(
            title=self.recipe.name,
            command=self.command,
            artifacts=artifacts,
            evaluations=evaluations,
            benches=(measured,),
            recipe=self.recipe.model_dump(mode="json"),
            training={spec.name: read_metrics(self.out / "train" / spec.name) for spec in self.methods},
            reference=reference,
        )
        with self.stage("report"):
            write(made, self.out / "report", overwrite=True)
        return made

    def dataset(self, folder: Path) -> Dataset:
        """The data of the run, loaded once, where a step needs it."""
        if self._dataset is None:
            spec = self.recipe.data
            self._dataset = open_trained_model(folder).dataset(spec.dir, download=spec.download)
        return self._dataset


@contextmanager
def _silent(_what: str) -> Iterator[Progress]:
    yield lambda _done, _all: None
