"""How often does a calibration break its promise? Random splits of held-out images, one exported artifact.

Each split takes ``--samples`` images for calibration; the rest, which nobody has used, tell the true drop of what was
chosen. On the same splits: the thresholds of 'sdcompress calibrate' without a confidence ("naive"), with one
("certified", with labels, and "unlabelled"), conformal risk control ("crc"), and the calibrator of the PyPI package
earlyon where it is installed.

With ``--population`` calibrations are drawn with replacement from all held-out images instead. These are the population
then, and the true drop is known exactly: where few images are left to measure on, a part of what is called broken is
noise, and a calibration with luck leaves the harder images.

With ``--group-by`` the drop is certified for every class, or for what has left by every exit: it is that of the worst
group, over the population.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from calibrators import Held, calibrators
from record import Record
from scipy.stats import beta

from sdcompress.calibration.stage_timing import stage_ms
from sdcompress.certification.groups import GroupBy
from sdcompress.evaluation.exit_outcomes import exit_outputs
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.options import EngineOptions, Options


def held_out(artifact: Path, data_dir: Path | None, cache: Path | None) -> Held:
    """The logits of all images that training has not seen, validation and test split, by the artifact's own graphs."""
    trained = open_trained_model(artifact, Options(data_dir=data_dir))
    digest = trained.digest
    kept = None if cache is None else cache / f"{digest[:16]}.npz"
    if kept is not None and kept.is_file():
        with np.load(kept) as arrays:
            return Held(arrays["logits"], arrays["labels"], tuple(arrays["stage_ms"]))
    dataset, engine = trained.dataset(), trained.engine(EngineOptions(threads=1))
    parts = (dataset.val, dataset.test)
    found = Held(
        np.concatenate([exit_outputs(engine, part) for part in parts], axis=1),
        np.concatenate([part.targets for part in parts]),
        stage_ms(engine, dataset.val),
    )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, logits=found.logits, labels=found.labels, stage_ms=np.array(found.stage_ms))
    return found


def trained_by(artifact: Path) -> dict[str, Any]:
    """What of the recipe decided the network; the folder of the data is somebody's own."""
    found = open_trained_model(artifact).recipe.model_dump(mode="json", include={"data", "model", "train", "method"})
    return {**found, "data": {**found["data"], "dir": None}}


def summary(
    drops: np.ndarray, costs: np.ndarray, fired: np.ndarray, max_drop: float, naive: np.ndarray
) -> dict[str, Any]:
    """What came of one calibrator over all splits."""
    runs, broken = len(drops), int((drops > max_drop).sum())
    upper = 1.0 if broken == runs else float(beta.ppf(0.95, broken + 1, runs - broken))
    ratios = costs / naive
    return {
        "splits": runs,
        "broken": broken,
        "broken_share": round(broken / runs, 4),
        "broken_share_upper_95": round(upper, 4),
        "nobody_leaves_share": round(float((~fired).mean()), 4),
        "true_drop_mean": round(float(drops.mean()), 5),
        "true_drop_percentiles_5_50_95": [round(float(q), 5) for q in np.percentile(drops, [5, 50, 95])],
        "cost_mean": round(float(costs.mean()), 4),
        "cost_over_naive_mean": round(float(ratios.mean()), 4),
    }


def measure(
    held: Held,
    drops: list[float],
    *,
    samples: int,
    rest: int | None,
    population: bool,
    splits: int,
    confidence: float,
    seed: int,
    group_by: GroupBy,
) -> dict[str, Any]:
    """All calibrators on the same splits, for every drop."""
    chosen = calibrators(confidence, group_by)
    outcomes: dict[tuple[float, str], list[tuple[float, float, bool]]] = defaultdict(list)
    for split in range(splits):
        rng = np.random.default_rng((seed, split))
        order = rng.permutation(held.count)
        calibration, others = order[:samples], order[samples:][:rest]
        if population:
            calibration, others = rng.integers(0, held.count, samples), np.arange(held.count)
        for drop in drops:
            for name, calibrator in chosen.items():
                outcomes[drop, name].append(held.outcome(calibrator(held, calibration, drop), others, group_by))
        if (split + 1) % 50 == 0:
            print(f"{split + 1} of {splits} splits", flush=True)
    columns = {key: [np.array(column) for column in zip(*rows, strict=True)] for key, rows in outcomes.items()}
    return {
        f"{drop:g}": {
            **{name: summary(*columns[drop, name], drop, columns[drop, "naive"][1]) for name in chosen},
            **({"oracle": {"cost_mean": round(held.oracle(drop), 4)}} if group_by is None else {}),
        }
        for drop in drops
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("artifact", type=Path, help="a cascade")
    read.add_argument("--name", required=True, help="of the data, in the record")
    read.add_argument("--samples", type=int, default=5000, help="calibration images of a split")
    read.add_argument("--rest", type=int, help="other images that tell the true drop; default: all")
    read.add_argument("--splits", type=int, default=500)
    read.add_argument("--max-drop", type=float, nargs="+", default=[0.005, 0.01, 0.02])
    read.add_argument("--confidence", type=float, default=0.95)
    read.add_argument("--population", action="store_true", help="draw calibrations with replacement")
    read.add_argument("--group-by", choices=["exit", "stratum"], help="the drop is for every group")
    read.add_argument("--seed", type=int, default=0)
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--cache", type=Path, help="folder for the logits")
    given = read.parse_args()
    population = given.population or given.group_by is not None
    kind = f"per-{given.group_by}" if given.group_by else "population" if population else ""
    record = Record("-".join(filter(None, [given.name, str(given.samples), kind])))
    held = held_out(given.artifact, given.data_dir, given.cache)
    right = held.right.mean(axis=1)
    figures = measure(
        held,
        given.max_drop,
        samples=given.samples,
        rest=given.rest,
        population=population,
        splits=given.splits,
        confidence=given.confidence,
        seed=given.seed,
        group_by=given.group_by,
    )
    print(json.dumps(figures, indent=1))
    record.write(
        figures,
        data=given.name,
        artifact=open_trained_model(given.artifact).digest,
        recipe=trained_by(given.artifact),
        held_out=held.count,
        exit_accuracy=[round(float(share), 4) for share in right],
        stage_ms=[round(ms, 4) for ms in held.stage_ms],
        samples=given.samples,
        rest=held.count if population else held.count - given.samples if given.rest is None else given.rest,
        splits=given.splits,
        confidence=given.confidence,
        seed=given.seed,
        group_by=given.group_by,
    )


if __name__ == "__main__":
    main()
