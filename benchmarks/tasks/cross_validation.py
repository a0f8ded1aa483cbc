"""Certify early exit and truncation of one recipe on all images of a small data set, by cross-validation.

    PYTHONPATH=. python benchmarks/tasks/cross_validation.py RECIPE DATA OUT --folds 3 --set model.weights=FILE ...

DATA is an image folder with or without splits. Every fold is held out once from a training by the recipe; half of its
images calibrate, half report. Outputs are those of the exported files. They are pooled over the folds: one set of
thresholds for all networks, tuned and certified on the calibration halves, then applied to the reporting halves. A
fold that is finished is skipped; a training that was stopped goes on.

The result is about the recipe: the mean drop of its networks, one for each fold, at common thresholds. It certifies no
single file. The images of a fold trained the networks of the others, so that pooled losses are not quite independent.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))
from record import Record

import sdcompress
from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.execution_target import graphs_digest
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import rewrite, staged
from sdcompress.calibration.stage_timing import stage_ms
from sdcompress.calibration.threshold_path import threshold_path
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.certification.calibration_split import draw_split, seed_of
from sdcompress.certification.certify import bonferroni_delta, certify, excess_losses, p_value_of, policy_metrics
from sdcompress.data.split import stratified_order
from sdcompress.evaluation.exit_outcomes import exit_losses, exit_outputs
from sdcompress.evaluation.strata import means
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.options import Options
from sdcompress.policies import exit_index_of, policy_class, scores
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Policy
from sdcompress.tasks import Task
from sdcompress.verbs.export import export_all

CONFIDENCE, DROPS = 0.95, (0.01, 0.02)
POLICY = "max_prob"
HALVES = ("validation", "test")  # of a fold: the images that calibrate, and those that report
Thresholds = tuple[float, ...]


@dataclass(frozen=True)
class Fold:
    """A trained and exported network with its outputs on the images that it has not seen.

    Attributes:
        folder: of its artifacts.
        task: of the network.
        outputs: float32 [E, N, K] for each half.
        targets: int64 [N] for each half.
        stage_ms: [E], from one exit to the next.
        facts: for the record.
    """

    folder: Path
    task: Task
    outputs: dict[str, npt.NDArray[np.float32]]
    targets: dict[str, npt.NDArray[np.int64]]
    stage_ms: npt.NDArray[np.float64]
    facts: dict[str, Any]


def split(data: Path, out: Path, folds: int) -> None:
    """Link the images of DATA to OUT/fold<k>/data, as train, val and test; classes keep their shares."""
    images = sorted(path for path in data.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    names = sorted({path.parent.name for path in images})
    order = stratified_order(np.array([names.index(path.parent.name) for path in images]), seed=(0,))
    for position, place in enumerate(order):
        at, held_out_in = divmod(position, folds)
        file = images[place].resolve()
        for fold in range(folds):
            part = ("val", "test")[at % 2] if fold == held_out_in else "train"
            link = out / f"fold{fold}" / "data" / part / file.parent.name / f"{file.parent.parent.name}-{file.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(file)


def run_fold(folder: Path, name: str, settings: list[str], *, first: bool) -> Fold:
    """Train, export and run one fold; of the first, truncated networks too. What is finished is not done again."""
    begin = time.process_time()
    settings = [*settings, f"data.dir={folder / 'data'}"]
    trained = sdcompress.train(
        name, folder / "run", settings=settings, on_start=print, on_epoch=print, checked=not first
    )
    seconds = time.process_time() - begin
    if not (folder / "cascade").exists():
        exits = trained.network().exit_names
        singles = [ExportSpec(folder / exit_, "single", exit_) for exit_ in exits] if first else []
        export_all(trained.path, [ExportSpec(folder / "cascade", "cascade"), *singles], options=Options(threads=1))
    kept = folder / "outputs.npz"
    model = open_trained_model(folder / "cascade", Options(threads=1))
    if not kept.exists():
        engine, dataset = model.engine(), model.dataset()
        arrays = {f"outputs_{half}": exit_outputs(engine, dataset.split(half), batch=32) for half in HALVES}
        arrays |= {f"targets_{half}": dataset.split(half).targets for half in HALVES}
        np.savez(kept, **arrays, stage_ms=stage_ms(engine, dataset.val), seconds=seconds)
    manifest = model.artifact().manifest
    with np.load(kept) as arrays:
        outputs, targets = ({half: arrays[f"{kind}_{half}"] for half in HALVES} for kind in ("outputs", "targets"))
        facts = {
            "training_images": trained.state.samples,
            "training_processor_s": round(float(arrays["seconds"]), 1),
            "weights_sha256": trained.weights_sha256,
            "graphs": graphs_digest(manifest),
            "data_fingerprint": manifest.provenance.data_fingerprint,
            "accuracy_on_reporting_half": _accuracies(outputs["test"], targets["test"]),
        }
        return Fold(folder, trained.task, outputs, targets, arrays["stage_ms"], facts)


def _accuracies(outputs: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> list[float]:
    return [round(float((exit_.argmax(axis=-1) == targets).mean()), 4) for exit_ in outputs]


def evidence(folds: list[Fold], half: str) -> tuple[Evidence, npt.NDArray[np.int64]]:
    """Return scores and losses of one half of all folds, each image by the network that has not seen it; targets."""
    task = folds[0].task
    outputs = np.concatenate([fold.outputs[half] for fold in folds], axis=1)
    targets = np.concatenate([fold.targets[half] for fold in folds])
    signals = [task.signals(exit_) for exit_ in outputs]
    loss = exit_losses(task, signals, targets)
    return Evidence(scores(policy_class(POLICY).fit(signals, loss), signals), loss), targets


def _rows(whole: Evidence, rows: npt.NDArray[np.int64]) -> Evidence:
    return Evidence(whole.scores[:, rows], whole.loss[:, rows])


def calibrated(folds: list[Fold], times: tuple[float, ...]) -> tuple[dict[str, Any], dict[str, Thresholds]]:
    """Return what the calibration halves say, and the thresholds that they choose."""
    pooled, _ = evidence(folds, "validation")
    data, graphs = (
        hashlib.sha256(" ".join(fold.facts[key] for fold in folds).encode()).hexdigest()
        for key in ("data_fingerprint", "graphs")
    )
    parts = draw_split(len(pooled), seed_of(data, graphs))
    tuning, tested = _rows(pooled, parts.tuning), _rows(pooled, parts.certify)
    path = threshold_path(tuning.scores, tuning.loss, times)
    chosen, levels = {}, {}
    for drop in DROPS:
        settings = recipe.Calibrate(max_drop=drop, confidence=CONFIDENCE)
        (level,) = certify(tested, path, settings, "betting")
        points = f"{100 * drop:g}"
        chosen[f"certified-{points}"] = path[level.certified]
        chosen[f"plain-{points}"] = choose_thresholds(pooled.scores, pooled.loss, times, drop)
        levels[points] = {
            "steps_certified": level.certified,
            "steps_of_the_path": len(path) - 1,
            "last_p_values": [round(p, 5) for p in level.p_values[-2:]],
            "drop_there": round(float(excess_losses(tested, path[level.certified]).mean()), 5),
            "truncation_p_values": [
                round(p_value_of("betting", _truncated(tested, k), drop, bonferroni_delta(CONFIDENCE, 1)), 5)
                for k in range(len(tested.loss) - 1)
            ],
        }
    figures = {
        "tuning_images": len(tuning),
        "certification_images": len(tested),
        "accuracy_of_exits_on_certification_images": [round(1 - float(each), 4) for each in tested.loss.mean(axis=1)],
        "certificates": levels,
    }
    return figures, chosen


def _truncated(pooled: Evidence, k: int) -> npt.NDArray[np.float64]:
    """Return each image's loss at exit k less that at the last exit."""
    return np.asarray(np.subtract(pooled.loss[k], pooled.loss[-1], dtype=np.float64))


def reported(folds: list[Fold], chosen: dict[str, Thresholds], times: tuple[float, ...]) -> dict[str, Any]:
    """Return accuracy, balanced accuracy and drop on the reporting halves: of every exit and of every policy."""
    pooled, targets = evidence(folds, "test")
    task, costs = folds[0].task, np.cumsum(times)
    exits = [exit_.name for exit_ in open_artifact(folds[0].folder / "cascade").manifest.exits]
    at = np.arange(len(targets))

    def row(exit_index: npt.NDArray[np.int64]) -> dict[str, Any]:
        loss = pooled.loss[exit_index, at]
        excess = np.subtract(loss, pooled.loss[-1], dtype=np.float64)
        return {
            "accuracy": round(float(1 - loss.mean()), 4),
            "balanced_accuracy": round(float(np.nanmean(means(targets, loss, len(task.outputs)))), 4),
            "drop": round(float(excess.mean()), 5),
            "drop_standard_error": round(float(excess.std(ddof=1) / np.sqrt(len(excess))), 5),
            "cost_of_the_whole": round(float(costs[exit_index].mean() / costs[-1]), 4),
        }

    truncations = {name: row(np.full(len(targets), k)) for k, name in enumerate(exits)}
    policies = {}
    for name, thresholds in chosen.items():
        exit_index = exit_index_of(pooled.scores, thresholds)
        shares = np.bincount(exit_index, minlength=len(exits)) / len(targets)
        policies[name] = {**row(exit_index), "thresholds": list(thresholds), "shares": shares.round(4).tolist()}
    return {"images": len(targets), "exits": truncations, "early_exit": policies}


def write_policy(fold: Fold, name: str, thresholds: Thresholds, pooled: Evidence, times: tuple[float, ...]) -> None:
    """Write a fold's cascade with pooled thresholds, to be timed; the artifact claims no certificate."""
    opened = open_artifact(fold.folder / "cascade")
    policy = Policy(
        name=POLICY,
        thresholds=thresholds,
        max_drop=float(name.rpartition("-")[2]) / 100,
        split="validation halves of all folds",
        samples=len(pooled),
        stage_ms=times,
        **policy_metrics(pooled, thresholds, unlabelled=False)._asdict(),
    )
    with staged(fold.folder / name, overwrite=True) as folder:
        rewrite(opened, folder, policy=policy, certificate=None, one_graph=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", default="folds", help="of the record")
    chosen = parser.parse_args()
    record = Record(Path(__file__).resolve().parent, chosen.name)
    split(chosen.data, chosen.out, chosen.folds)
    folds = [
        run_fold(chosen.out / f"fold{fold}", chosen.recipe, chosen.set, first=fold == 0) for fold in range(chosen.folds)
    ]
    times = tuple(float(ms) for ms in np.mean([fold.stage_ms for fold in folds], axis=0))
    calibration, thresholds = calibrated(folds, times)
    pooled, _ = evidence(folds, "validation")
    for name, each in thresholds.items():
        write_policy(folds[0], name, each, pooled, times)
    record.write(
        {
            "calibration": calibration,
            "report": reported(folds, thresholds, times),
            "stage_ms": [round(ms, 3) for ms in times],
            "folds": [fold.facts for fold in folds],
        },
        confidence=CONFIDENCE,
        policy=POLICY,
        recipe=chosen.recipe,
        settings=[word for word in chosen.set if "/" not in word],
    )


if __name__ == "__main__":
    main()
