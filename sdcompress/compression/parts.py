"""Make the artifacts of a search, each once: exports, lower precisions, calibrated cascades."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.calibration.calibrate import calibrate
from sdcompress.compression.candidates import FLOAT
from sdcompress.data.samples import Samples
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.options import Options
from sdcompress.pipeline.steps import Record, Step, StepProgress
from sdcompress.progress import Progress
from sdcompress.schema.compression import Candidate
from sdcompress.schema.graphs import Ensemble
from sdcompress.schema.recipe import Calibrate
from sdcompress.verbs.export import export, export_all
from sdcompress.verbs.quantize import quantize

__all__ = ["FINALISTS", "PARTS", "Parts", "labels_of"]

PARTS, FINALISTS = "parts", "finalists"
_BROKEN = 0.5  # a precision may cost an exit this much: the tests of the finalists decide, not each exit by itself


@dataclass(frozen=True)
class Parts:
    """The artifacts below the folder of a search.

    Attributes:
        folder: of the search.
        sources: checkpoints.
        labels: of the sources, each once.
        options: of all verbs.
        record: of finished steps.
        step_progress: shows the progress of a step.
    """

    folder: Path
    sources: Sequence[TrainedModel]
    labels: Sequence[str]
    options: Options
    record: Record
    step_progress: StepProgress

    def exported(self, source: int, kept: Sequence[tuple[str, ...]], ensemble: Ensemble | None = None) -> None:
        """Export a checkpoint with each choice of exits, in one go; one exit alone is a network truncated there.

        Args:
            source: index of the checkpoint.
            kept: names of exits.
            ensemble: of the exits of each choice.
        """
        model = self.sources[source]
        targets = [self._spec(source, exits, ensemble) for exits in dict.fromkeys(kept)]
        missing = [target for target in targets if not _is_export_of(model, target.out)]
        if not missing:
            return

        def work(progress: Progress) -> None:
            export_all(model, missing, {"ensemble": ensemble}, replace(self.options, progress=progress), overwrite=True)

        # no inputs: the exports themselves say of which weights they are, whatever else was exported beside them
        self.record.run(Step(f"export {', '.join(one.out.name for one in missing)}", work), self.step_progress)

    def part(self, source: int, exits: tuple[str, ...], precision: str, ensemble: Ensemble | None = None) -> Artifact:
        """Return an exported network in a precision; it is quantised if it was not.

        Ensembles are exported here, each by itself: none shares an export by torch with others, and one that fails
        fails alone.

        Raises:
            VerificationError, ParityError: if the precision breaks the network.
            SetupError: if this machine does not run it.
        """
        if ensemble:
            self.exported(source, [exits], ensemble)
        exported = self._spec(source, exits, ensemble).out
        if precision == FLOAT:
            return open_artifact(exported)
        out = exported.with_name(f"{exported.name}-{precision}")

        def work(progress: Progress) -> None:
            options = replace(self.options, progress=progress)
            quantize(exported, out, precision, {"max_drop": _BROKEN}, options, overwrite=True)

        digest = open_artifact(exported).manifest.digest
        self.record.run(Step(f"quantize {out.name}", work, [digest], (out,)), self.step_progress)
        return open_artifact(out)

    def calibrated(
        self,
        candidate: Candidate,
        confidence: float,
        samples: Samples,
        reference: Artifact | None,
        *,
        joint_confidence: float,
    ) -> Artifact:
        """Return a cascade with certified thresholds.

        Args:
            candidate: a cascade.
            confidence: of its test.
            samples: that the search has not used.
            reference: from which its drop is counted; None: its own last exit.
            joint_confidence: of the tests of all finalists, which its certificate states: it may be the one chosen.
        """
        cascade = self.part(candidate.source, candidate.exits, candidate.precision, candidate.ensemble)
        # a drop each: a search that goes on would make the thresholds of a smaller one again, by other times
        name = f"{candidate.name}-{candidate.max_drop:g}"
        out = self.folder / FINALISTS / name
        settings = Calibrate(
            policy=str(candidate.policy),
            max_drop=candidate.max_drop,
            confidence=confidence,
            drop_slow_exits=False,  # which exits pay is measured at the end, also as one graph, where they cost less
        )

        def work(progress: Progress) -> None:
            calibrate(
                cascade,
                out,
                settings,
                self.options,
                samples=samples,
                reference=reference,
                joint_confidence=joint_confidence,
                overwrite=True,
                progress=progress,
            )

        inputs: list[object] = [
            cascade.manifest.digest,
            reference and reference.manifest.digest,
            settings.model_dump(mode="json"),
            joint_confidence,
            len(samples),
            self.options.threads,  # stage times, which decide the path, are of these threads
        ]
        self.record.run(Step(f"calibrate {name}", work, inputs, (out,)), self.step_progress)
        return open_artifact(out)

    def one_graph(self, cascade: Artifact) -> Artifact:
        """Return a copy of a calibrated cascade with one graph that exits by itself.

        Raises:
            UsageError: if its policy cannot be merged, or no sample exits early.
            ParityError: if the graph predicts otherwise.
            VerificationError: if early exit is not faster in it.
        """
        out = cascade.path.with_name(f"{cascade.path.name}-if")

        def work(progress: Progress) -> None:
            options = replace(self.options, threads=None, progress=progress)  # it is timed with one thread
            export(cascade.path, out, None, options, layout="if", overwrite=True)

        self.record.run(Step(f"merge {out.name}", work, [cascade.manifest.digest], (out,)), self.step_progress)
        return open_artifact(out)

    def _spec(self, source: int, exits: tuple[str, ...], ensemble: Ensemble | None) -> ExportSpec:
        out = self.folder / PARTS / f"{self.labels[source]}-{'+'.join(exits)}{'-ensemble' if ensemble else ''}"
        if len(exits) == 1:
            return ExportSpec(out, "single", exits[0])
        return ExportSpec(out, "cascade", exit=exits[-1], exits=exits)


def _is_export_of(model: TrainedModel, out: Path) -> bool:
    """Return whether an export is there and of these weights: another network may have had this name before."""
    if not out.exists():
        return False
    made = open_artifact(out).manifest.provenance
    return (made.weights_sha256, made.data_fingerprint) == (model.digest, model.data_fingerprint)


def labels_of(sources: Sequence[TrainedModel]) -> Iterator[str]:
    """Yield a name for each source: that of its folder, with a number where several have the same."""
    names = [source.path.resolve().name for source in sources]
    taken = set(names)
    for index, name in enumerate(names):
        numbered = (f"{name}{number}" for number in count(index + 1))
        label = name if names.count(name) == 1 else next(one for one in numbered if one not in taken)
        taken.add(label)
        yield label
