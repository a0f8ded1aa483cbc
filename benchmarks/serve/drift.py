"""How soon the tests for drift alarm, and how often without cause: thousands of simulated lifetimes, and a real engine.

    PYTHONPATH=. python benchmarks/serve/drift.py --artifact artifacts/age-early --data-dir data

The simulated wealth is that of ``runtime/e_process.py`` for many lifetimes at once; it is first compared with the class
itself. The artifact is one of a table (docs/regression.md) with a certificate of disagreement (calibrate --unlabelled),
so that its bound is the certified one. Its test split is served by the real scheduler, worker and engine, first as it
is, then with noise on its numbers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.certification.p_values import upper_bound
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.modalities import Inputs
from sdcompress.options import Options
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.drift import AuditTest, DriftMonitor, ShareTest
from sdcompress.runtime.e_process import AT_ONCE, ODDS
from sdcompress.runtime.levels import Level, certified_levels
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried
from sdcompress.serving.audits import Audits
from sdcompress.serving.job import Job
from sdcompress.serving.warm_up import usual_inputs, warm_up
from sdcompress.serving.watched_scheduler import WatchedScheduler
from sdcompress.serving.worker import Worker

HERE = Path(__file__).resolve().parent
DELTA = 0.025  # of each test
ALARM = 1 / (0.8 * DELTA)
ALPHA = 0.01
SHARES, CALIBRATED, BLOCK = (0.6, 0.25, 0.15), 5000, 32
BETS = np.array(ODDS)
PATIENT = 60.0  # seconds: the real stream measures no latency
Array = npt.NDArray[np.floating]


class Lifetimes:
    """The wealth of R lifetimes; see ``EProcess``."""

    def __init__(self, runs: int, means: int, lifetime: float) -> None:
        self.stakes = np.full((runs, means, len(BETS)), AT_ONCE / (means * len(BETS)))
        self.waiting, self.lifetime = 1 - AT_ONCE, lifetime
        self.alarm_at = np.full(runs, np.inf)
        self.largest, self.rows = np.ones(runs), 0

    def multiply(self, factors: Array, rows: int) -> None:
        """Bet on rows of each lifetime; factors are [R, H, K]."""
        self.stakes *= factors
        joins = self.waiting * (1 - (1 - 1 / max(self.lifetime, self.rows)) ** rows)
        self.waiting -= joins
        self.stakes += joins / self.stakes[0].size
        self.rows += rows
        self.largest = np.maximum(self.largest, self.waiting + self.stakes.sum(axis=(1, 2)))
        reached = self.largest >= ALARM
        self.alarm_at[reached & np.isinf(self.alarm_at)] = self.rows


def audits(rng: np.random.Generator, risk: Callable[[int], float], length: int, runs: int) -> Array:
    """After how many audits each lifetime alarms; infinite: never. ``risk`` is the disagreement at each audit."""
    lives = Lifetimes(runs, 1, 100_000)
    hit, miss = BETS / (1 + (BETS - 1) * ALPHA), 1 / (1 + (BETS - 1) * ALPHA)
    for at in range(length):
        differs = rng.random(runs) < risk(at)
        lives.multiply(np.where(differs[:, None, None], hit, miss), 1)
        if not np.isinf(lives.alarm_at).any():
            break
    return lives.alarm_at


def shares(rng: np.random.Generator, live: Callable[[int], tuple[float, ...]], length: int, runs: int) -> Array:
    """After how many rows each lifetime alarms. Each has a calibration of its own, of 5,000 samples."""
    lives = Lifetimes(runs, 2 * len(SHARES), 1_000_000)
    counted = rng.multinomial(CALIBRATED, SHARES, runs)
    counted = np.concatenate([counted, CALIBRATED - counted], axis=1)
    each = 0.2 * DELTA / counted.shape[1]
    bounds = {c: upper_bound(c, CALIBRATED, each, binary_loss=True) for c in np.unique(counted).tolist()}
    per_row = np.log1p((BETS - 1) * np.vectorize(bounds.__getitem__)(counted)[:, :, None])
    for start in range(0, length, BLOCK):
        ones = rng.multinomial(BLOCK, live(start), runs)
        ones = np.concatenate([ones, BLOCK - ones], axis=1)[:, :, None]
        lives.multiply(np.exp(ones * np.log(BETS) - BLOCK * per_row), BLOCK)
        if not np.isinf(lives.alarm_at).any():
            break
    return lives.alarm_at


def check() -> None:
    """Compare the simulated wealth with that of the tests themselves."""
    rng = np.random.default_rng(7)
    values, lives, test = rng.random(3000) < 0.015, Lifetimes(1, 1, 100_000), AuditTest([level()])
    for value in values:
        lives.multiply((1 + (BETS - 1) * value) / (1 + (BETS - 1) * ALPHA), 1)
    test.audited(values)
    np.testing.assert_allclose(np.log(lives.largest) / np.log(ALARM), test.evidence)
    exits = rng.choice(3, 3200, p=(0.5, 0.3, 0.2))
    lives, counted = Lifetimes(1, 6, 1_000_000), ShareTest([level()])
    totals = CALIBRATED * np.concatenate([SHARES, 1 - np.array(SHARES)])
    bounds = [upper_bound(total, CALIBRATED, 0.2 * DELTA / 6, binary_loss=True) for total in totals]
    for block in exits.reshape(-1, BLOCK):
        ones = np.bincount(block, minlength=3)
        ones = np.concatenate([ones, BLOCK - ones])[:, None]
        lives.multiply(np.exp(ones * np.log(BETS) - BLOCK * np.log1p((BETS - 1) * np.array(bounds)[:, None])), BLOCK)
    counted.answered(exits)
    np.testing.assert_allclose(np.log(lives.largest) / np.log(ALARM), counted.evidence)
    assert counted.evidence > 0
    assert test.evidence > 0


def level() -> Level:
    return Level(ALPHA, (0.9, 0.9), CALIBRATED, SHARES, ALPHA)


def delays(alarm_at: Array, change: int, most: int) -> dict[str, float | int | None]:
    """Delays after the change, of lifetimes without an alarm before it; None: longer than ``most``."""
    after = alarm_at[alarm_at > change] - change
    median, late = (float(np.quantile(after, q, method="higher")) for q in (0.5, 0.9))
    return {
        "median": int(median) if median <= most else None,
        "p90": int(late) if late <= most else None,
        "found": round(float((after <= most).mean()), 3),
    }


def simulated(runs: int, seed: int) -> dict[str, Any]:
    """Return false alarms and delays of both tests."""
    rng = np.random.default_rng(seed)
    alarms: dict[str, Any] = {"audits": {}, "exit shares": {}}
    for name, risk in (("at the certified level", ALPHA), ("at 0.7 of it", 0.7 * ALPHA)):
        alarms["audits"][name] = _rate(audits(rng, lambda _, risk=risk: risk, 100_000, runs))
    alarms["exit shares"]["as calibrated"] = _rate(shares(rng, lambda _: SHARES, 1_000_000, runs // 2))
    found: dict[str, Any] = {"audits": {}, "exit shares": {}}
    for times in (1.25, 1.5, 2.0, 3.0, 5.0):
        at_once = audits(rng, lambda _, times=times: times * ALPHA, 20_000, runs)
        later = audits(rng, lambda at, times=times: (0.7 if at < 10_000 else times) * ALPHA, 30_000, runs)
        found["audits"][f"{times:g} times the level"] = {
            "from the start": delays(at_once, 0, 20_000), "after 10,000": delays(later, 10_000, 20_000),
        }  # fmt: skip
    for moved in (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2):
        live = (SHARES[0] + moved, SHARES[1] - moved / 2, SHARES[2] - moved / 2)
        at_once = shares(rng, lambda _, live=live: live, 50_000, runs // 2)
        later = shares(rng, lambda at, live=live: SHARES if at < 100_000 else live, 150_000, runs // 2)
        found["exit shares"][f"{100 * moved:+g} points at the first exit"] = {
            "from the start": delays(at_once, 0, 50_000), "after 100,000": delays(later, 100_000, 50_000),
        }  # fmt: skip
    return {"false alarms in a lifetime": alarms, "delay": found}


def _rate(alarm_at: Array) -> dict[str, float | int]:
    return {"lifetimes": len(alarm_at), "share": round(float(np.isfinite(alarm_at).mean()), 4)}


class Stream:
    """Rows of a real test split, served one by one by the real scheduler, worker and engine."""

    def __init__(self, engine: CascadeEngine, levels: tuple[Level, ...], audit_share: float) -> None:
        stages, task = engine.stepwise(), engine.task
        self.monitor = DriftMonitor(levels, audit_share=audit_share, seed=0)
        self.scheduler = WatchedScheduler(
            warm_up(engine, stages, most_rows=32), most_rows=4096, clock=time.monotonic, levels=levels,
            latency_bound=PATIENT, monitor=self.monitor,
            audits=Audits(self.monitor, lambda a, b: task.loss(task.decide(a), task.decide(b)), len(stages)),
        )  # fmt: skip
        self.worker = Worker(stages, self.scheduler, name="worker", probe=Carried(usual_inputs(engine).arrays))
        self.worker.start()
        self.sent = 0

    def send(self, inputs: Inputs, rows: npt.NDArray[np.int64], rate: float) -> int | None:
        """Send rows at a rate, and return how many it took to an alarm; None: there was none."""
        for count, row in enumerate(rows.tolist(), 1):
            self.worker.submit(
                Job(Carried(inputs[row : row + 1].arrays), bound=time.monotonic() + PATIENT, covered=True)
            )
            time.sleep(1 / rate)
            if self.monitor.alarm is not None:
                return count
        return None


def real(artifact: Path, data_dir: Path, audit_share: float, rate: float) -> dict[str, Any]:
    """Serve a test split as it is, then with noise on its numbers, once for each test alone."""
    opened = open_trained_model(artifact, Options(data_dir=data_dir, threads=1))
    engine = open_cascade(artifact, Options(threads=1))
    test = opened.dataset().test
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(test))
    usual = engine.modality.collate(test.examples(np.arange(len(test))))
    numbers = usual.arrays["numbers"]
    noise = rng.normal(scale=1.5, size=numbers.shape).astype(np.float32)
    noisy = Inputs({**usual.arrays, "numbers": numbers + noise})
    (first, *_) = certified_levels(engine.manifest)
    outputs = {name: engine(inputs) for name, inputs in (("as it is", usual), ("with noise", noisy))}
    figures: dict[str, Any] = {
        "rows": len(test), "bound": first.disagreement, "calibrated shares": first.shares,
        "shares": {
            name: np.round(np.bincount(one.exit_index, minlength=len(first.shares)) / len(test), 4).tolist()
            for name, one in outputs.items()
        },
        "disagreement": {
            name: round(float(engine.task.loss(outputs[name].decision, engine.forced(inputs, -1).decision).mean()), 5)
            for name, inputs in (("as it is", usual), ("with noise", noisy))
        },
    }  # fmt: skip
    alone = {"exit shares": replace(first, disagreement=None), "audits": replace(first, shares=())}
    for name, one in alone.items():
        stream = Stream(engine, (one,), audit_share if name == "audits" else 0.0)
        quiet = stream.send(usual, rows[: len(rows) // 2], rate)
        before = stream.monitor.audits.audits
        begin = time.monotonic()
        alarm = stream.send(noisy, rows[len(rows) // 2 :], rate) if quiet is None else None
        figures[name] = {
            "false alarm after rows": quiet,
            "alarm after noisy rows": alarm,
            "alarm after audits": stream.monitor.audits.audits - before if name == "audits" else None,
            "seconds": round(time.monotonic() - begin, 1),
        }
        last = Job(Carried(usual[:1].arrays), bound=time.monotonic() + PATIENT, covered=True)
        stream.worker.submit(last)
        stream.worker.stop()
        figures[name]["whole network after it"] = bool(last.exit_index[0] == len(engine.exit_names) - 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", type=Path, required=True, help="with a certificate of disagreement, of a table")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--lifetimes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit-share", type=float, default=0.2, help="of the real stream")
    parser.add_argument("--rate", type=float, default=400.0, help="rows per second of the real stream")
    chosen = parser.parse_args()
    record = Record(HERE)
    check()
    figures = {
        "simulated": simulated(chosen.lifetimes, chosen.seed),
        "real engine": real(chosen.artifact, chosen.data_dir, chosen.audit_share, chosen.rate),
    }
    record.write(figures, lifetimes=chosen.lifetimes, seed=chosen.seed, alpha=ALPHA, delta_of_each_test=DELTA,
                 shares=SHARES, calibration_samples=CALIBRATED, audit_share=chosen.audit_share,
                 rate=chosen.rate)  # fmt: skip


if __name__ == "__main__":
    main()
