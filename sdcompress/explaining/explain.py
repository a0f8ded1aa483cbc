"""Explain an artifact: run its exits on a split, time its stages, and decide whether early exit pays."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.artifact.card import guarantee
from sdcompress.artifact.read import Artifact
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.explaining.exit_analysis import ExitAnalysis, Outcomes, collect
from sdcompress.explaining.risk import risk
from sdcompress.explaining.timing import Timing, measure
from sdcompress.machine import machine
from sdcompress.options import Options
from sdcompress.policies import default_policy, restore
from sdcompress.policies._base import ExitPolicy
from sdcompress.progress import subprogress
from sdcompress.reporting.write import check_ready, write
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_cascade
from sdcompress.schema.explain import Explanation, Risk, Split
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task, task_of

__all__ = ["explain", "explanation"]


def explain(
    artifact: TrainedModel | Path | str,
    out: Path | str,
    options: Options | None = None,
    *,
    split: Split = "test",
    overwrite: bool = False,
) -> Explanation:
    """Measure metric and time of the exits of an artifact, and write an explanation.

    Writes explain.json, explain.md and explain.html. docs/explain.md defines each figure.

    Args:
        artifact: of any layout, with or without a policy.
        out: the output folder.
        options: threads (default: one) of the engine, also while stages are timed; where the data lies; progress in
            samples.
        split: the split to explain. The path of thresholds is always chosen on validation.
        overwrite: replace an existing explanation.

    Raises:
        UsageError: if the folder is a checkpoint.
        OutputExistsError: if ``out`` already holds an explanation.
        MissingExtraError: the extra 'report' is not installed.
        ArtifactError, DataError: if the artifact or the data is damaged.
    """
    check_ready(Explanation, out, overwrite=overwrite)
    record = explanation(artifact, options, split=split)
    write(record, out, overwrite=overwrite)
    return record


def explanation(artifact: TrainedModel | Path | str, options: Options | None = None, *, split: Split) -> Explanation:
    """Return what ``explain`` writes, with the same arguments and errors.

    The path of thresholds is chosen on the validation split and evaluated on ``split``. If both are the same split, the
    figures of the path are optimistic; ``curve_split`` names the split.
    """
    options = options or Options()
    threads, progress = options.threads or 1, options.progress
    trained = open_trained_model(artifact, replace(options, threads=threads))
    opened = trained.artifact(
        allowed="an artifact, because the cost of exits is that of the exported graphs",
        next_step=f"sdcompress export {shlex.quote(str(trained.path))} --layout cascade --out FOLDER, and explain "
        "FOLDER",
    )
    # its segments: the time of a decision is that of their policy, not of one graph that exits by itself
    engine, dataset = open_cascade(opened, trained.options), trained.dataset()
    manifest, samples = opened.manifest, dataset.split(split)
    # in the layout 'all' one graph computes every exit, so that early exit saves nothing
    has_curve = manifest.layout != "all" and len(manifest.exits) > 1
    path_samples = dataset.val if has_curve and split == "test" and len(dataset.val) else None
    total = len(samples) + len(path_samples or ())
    chosen = manifest.policy
    policy = restore(chosen.name, chosen.parameters, engine.task) if chosen else default_policy(engine.task)
    outcomes = collect(engine, samples, policy, subprogress(progress, 0, total))
    path_outcomes = (
        collect(engine, path_samples, policy, subprogress(progress, len(samples), total)) if path_samples else outcomes
    )
    analysis = _analysis(
        manifest, engine, policy, outcomes, measure(engine, samples) if manifest.layout != "all" else None
    )
    last_exit = np.full(len(samples), len(analysis.names) - 1)
    return Explanation(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=options.command,
        source=str(trained.path),
        **_identity(manifest),
        data=dataset.name,
        split=split,
        samples=len(samples),
        metric_name=engine.task.metric,
        binary_loss=engine.task.binary_loss,
        stratum=None if outcomes.strata is None else engine.task.stratum,
        machine=machine(),
        threads=threads,
        turns_ms=tuple(map(tuple, analysis.timing.reach_ms_by_round.tolist())) if analysis.timing else (),
        decision_ms=analysis.timing.decision_ms if analysis.timing and analysis.thresholds else None,
        exits=analysis.exits(),
        policy=analysis.policy(),
        strata=analysis.strata(engine.task.strata_names),
        curve=analysis.curve(path_outcomes),
        curve_split=None if not has_curve else "validation" if path_samples else split,
        curve_samples=path_outcomes.loss.shape[1] if has_curve else 0,
        overthinking=analysis.overthinking(last_exit),
        policy_overthinking=analysis.overthinking(analysis.exit_index),
        oracle=analysis.oracle() if len(analysis.names) > 1 else None,
        risk=_risk(opened, analysis.timing, engine.task),
    )


def _analysis(
    manifest: Manifest, engine: Engine, policy: ExitPolicy, outcomes: Outcomes, timing: Timing | None
) -> ExitAnalysis:
    return ExitAnalysis(
        names=engine.exit_names,
        macs=np.array([cost.macs for cost in engine.exit_costs], np.float64),
        thresholds=manifest.policy.thresholds if manifest.policy else None,
        shared=policy.shared,
        outcomes=outcomes,
        timing=timing,
    )


def _identity(manifest: Manifest) -> dict[str, Any]:
    policy = manifest.policy
    return {
        "digest": manifest.digest,
        "layout": manifest.layout,
        "exits_are_ensembles": manifest.exits_are_ensembles,
        "policy_name": policy.name if policy else None,
        "guarantee": guarantee(policy, manifest.certificate, task_of(manifest)) if policy else None,
    }


def _risk(opened: Artifact, timing: Timing | None, task: Task) -> Risk | None:
    certificate, policy = opened.manifest.certificate, opened.manifest.policy
    if certificate is None or policy is None or timing is None:
        return None
    if policy.max_drop not in {level.max_drop for level in certificate.levels}:
        return None  # without early exit the target risk may not have been tested
    return risk(certificate, policy, opened.evidence(), timing.reach_ms_with_decisions, task)
