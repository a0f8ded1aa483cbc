"""A certified calibration of a real artifact: what is certified is what runs, on samples that chose nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import calibrate, least_samples
from sdcompress.calibration.stage_timing import CallTimes
from sdcompress.certification.calibration_split import draw_split
from sdcompress.certification.certify import excess_losses
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.certification.recompute import verify_certificate
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import DataError, UsageError, VerificationError
from sdcompress.modalities import as_image, modality_of
from sdcompress.modalities._image_preprocess import normalise
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, Manifest, Policy
from sdcompress.tasks.classification import Classification

Build = Callable[..., Path]


@pytest.fixture
def samples(tiny_network: Any) -> ArraySamples:
    return tiny_network.samples(4000)


def certified(build: Build, samples: Any, name: str = "out", **settings: Any) -> tuple[Certificate, Policy, Path]:
    cascade = build(name=f"cascade-{name}")
    wish = recipe.Calibrate(**{"max_drop": 0.05, "confidence": 0.9, **settings})
    manifest = calibrate(cascade, cascade.parent / name, samples=samples, settings=wish)
    assert manifest.certificate is not None
    assert manifest.policy is not None
    return manifest.certificate, manifest.policy, cascade.parent / name


def test_what_is_certified_is_what_the_engine_does(certified_artifact: Path, tiny_network: Any) -> None:
    manifest = open_artifact(certified_artifact).manifest
    certificate, policy = manifest.certificate, manifest.policy
    assert certificate is not None
    assert policy is not None
    assert (policy.guarantee, certificate.test, certificate.loss) == ("certified", "betting", "drop")
    assert (certificate.tuning_samples, certificate.certify_samples, policy.samples) == (666, 3334, 3334)
    order = draw_split(4000, certificate.seed).certify
    held = Subset(tiny_network.samples(4000), order)
    engine = open_engine(certified_artifact, threads=1)
    inputs = engine.preprocess(held.examples(np.arange(3334)))
    found, whole = engine(inputs), engine.exits(inputs)[-1]
    gap = (whole.argmax(1) == held.targets).astype(int) - (found.outputs.argmax(1) == held.targets)
    level = next(level for level in certificate.levels if level.max_drop == 0.05)
    assert level.certified > 0
    # the p-value of the thresholds that run, from the engine's own answers
    p_value = betting_p_value(gap, 0.05, level.delta)
    assert p_value == pytest.approx(level.p_values[level.certified - 1], rel=1e-9)
    assert p_value <= level.delta == 0.05  # 1 - 0.9, for two wishes
    assert policy.thresholds == certificate.path[level.certified]
    assert policy.shares == tuple(float((found.exit_index == k).mean()) for k in range(3))
    assert policy.shares[-1] < 1
    assert policy.stage_times is not None  # by which compaction and deadlines are decided
    assert policy.metric == float((found.outputs.argmax(1) == held.targets).mean())
    evidence = open_artifact(certified_artifact).evidence()
    np.testing.assert_array_equal(excess_losses(evidence, policy.thresholds), gap)


def test_the_ladder_uses_one_path_and_shares_delta(certified_artifact: Path) -> None:
    certificate = verify_certificate(open_artifact(certified_artifact))
    assert certificate is not None
    small, large = certificate.levels
    assert (small.max_drop, large.max_drop) == (0.02, 0.05)
    assert small.certified < large.certified
    assert sum(level.delta for level in certificate.levels) == pytest.approx(0.1)
    assert len(certificate.path) == max(len(level.p_values) for level in certificate.levels) + 1


def test_one_of_several_certificates_states_the_confidence_of_all(tiny_artifact: Build, samples: ArraySamples) -> None:
    """Of five at 98 % the luckiest is chosen: 90 % is what can be said of it."""
    cascade = tiny_artifact(name="one-of-five")
    settings, out = recipe.Calibrate(max_drop=0.05, confidence=0.98), cascade.parent / "one-of-five-out"
    calibrate(cascade, out, settings, samples=samples, joint_confidence=0.9)
    certificate = verify_certificate(open_artifact(out))
    assert certificate is not None
    assert certificate.levels[0].delta == pytest.approx(0.02)
    assert certificate.confidence == 0.9
    assert "5 % at 90 % confidence" in (out / "README.md").read_text(encoding="utf-8")


def test_neither_temperatures_nor_path_have_seen_what_certifies(
    tiny_artifact: Build, samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels on the certifying part change the tests, and nothing that was decided before."""
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    first, _, _ = certified(tiny_artifact, samples, "first")
    order = draw_split(4000, first.seed).certify
    labels = samples.targets.copy()
    labels[order] = (labels[order] + 1) % 3
    spoilt = ArraySamples(samples.examples(np.arange(4000)), labels)
    second, _, _ = certified(tiny_artifact, spoilt, "second")
    assert second.temperatures == first.temperatures
    tested = min(len(first.path), len(second.path))
    assert tested > 2
    assert second.path[:tested] == first.path[:tested]
    assert second.levels != first.levels


def test_the_same_graphs_and_data_draw_the_same_parts_whatever_else(
    tiny_artifact: Build, samples: ArraySamples
) -> None:
    first, _, out = certified(tiny_artifact, samples, "first")
    again = recipe.Calibrate(max_drop=0.3, confidence=0.8, fit_temperature=False)
    second = calibrate(out, out.parent / "second", samples=samples, settings=again)  # another digest, the same graphs
    assert second.certificate is not None
    assert second.certificate.seed == first.seed


def test_without_labels_disagreement_is_certified_exactly(tiny_artifact: Build, samples: ArraySamples) -> None:
    unknown = ArraySamples(samples.examples(np.arange(4000)), np.full(4000, -1))
    certificate, policy, out = certified(tiny_artifact, unknown, unlabelled=True)
    assert (certificate.test, certificate.loss) == ("binomial", "disagreement")
    assert (policy.metric, policy.reference_metric) == (None, None)
    assert certificate.temperatures == (1.0, 1.0, 1.0)
    (level,) = certificate.levels
    engine = open_engine(out, threads=1)
    images = samples.examples(draw_split(4000, certificate.seed).certify)
    inputs = normalise(images, engine.modality.preprocess)
    differ = int((engine(inputs).outputs.argmax(1) != engine.exits(inputs)[-1].argmax(1)).sum())
    assert differ > 0
    assert level.p_values[level.certified - 1] == pytest.approx(binomial_p_value(differ, 3334, 0.05), rel=1e-9)
    assert verify_certificate(open_artifact(out)) == certificate
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "at most 5 % differ from the last exit" in text


def test_no_certificate_is_an_outcome_and_there_is_no_early_exit(
    tiny_artifact: Build, tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exits that are right by chance only: nothing of them can be certified."""
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    pool = tiny_network.samples(9000)
    images = pool.examples(np.arange(9000))
    exits = tiny_network.exits(
        normalise(images, as_image(modality_of(open_artifact(tiny_artifact()).manifest)).preprocess)
    ).argmax(2)
    hard = (exits[0] != exits[2]) & (exits[1] != exits[2])
    assert hard.sum() > 500
    only_last = ArraySamples(images[hard], exits[2, hard])
    # the draw hangs on the graphs: at 99.9 % no luck lets a step pass that loses half of the samples
    certificate, policy, out = certified(tiny_artifact, only_last, confidence=0.999)
    (level,) = certificate.levels
    assert level.certified == 0
    assert level.p_values[0] > level.delta  # the test that failed is on record
    assert policy.guarantee == "no certificate"
    assert policy.shares == (0.0, 0.0, 1.0)
    assert policy.metric == policy.reference_metric == 1.0
    assert verify_certificate(open_artifact(out)) == certificate
    engine = open_engine(out, threads=1)
    assert (engine(engine.preprocess(images[:50])).exit_index == 2).all()
    assert "no certificate was found" in (out / "README.md").read_text(encoding="utf-8")


def test_a_budget_takes_the_safest_certified_step_that_keeps_it(
    tiny_artifact: Build, samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    # three calibrations are compared: none of them may measure for itself
    monkeypatch.setattr("sdcompress.calibration.tuning.decision_ms", lambda policy, signals: (0.0, 0.0))
    timed(monkeypatch, exit_ms=(1.0, 2.0, 3.0), whole_ms=3.0)
    _, fastest, _ = certified(tiny_artifact, samples, "fastest")
    budget = (fastest.mean_ms + 3.0) / 2
    certificate, policy, out = certified(tiny_artifact, samples, "budget", budget_ms=budget)
    step = certificate.path.index(policy.thresholds)
    assert 0 < step < certificate.levels[0].certified
    assert policy.mean_ms <= budget
    evidence = open_artifact(out).evidence()
    left = [evidence.scores >= np.float32(certificate.path[step - 1])[:, None]]
    earlier = np.where(left[0][0], 1.0, np.where(left[0][1], 2.0, 3.0)).mean()
    assert earlier > budget  # the step before is too slow
    assert verify_certificate(open_artifact(out)) == certificate
    with pytest.raises(UsageError, match=r"take 0\.5 ms") as caught:
        certified(tiny_artifact, samples, "never", budget_ms=0.5)
    assert f"{fastest.mean_ms:.3g} ms or more" in caught.value.allowed


def timed(monkeypatch: pytest.MonkeyPatch, *, exit_ms: tuple[float, float, float], whole_ms: float) -> None:
    """Let samples take these times at their exits, and this time where none exits early."""
    monkeypatch.setattr("sdcompress.calibration.guarantee.call_times", lambda *_: CallTimes(1.0, exit_ms))
    monkeypatch.setattr(
        "sdcompress.calibration.guarantee.faster_form",
        lambda policy, *_, **__: policy.model_copy(update={"whole_ms": whole_ms}),
    )


@pytest.mark.parametrize(
    ("exit_ms", "whole_ms"),
    [
        ((1.0, 2.0, 3.0), 2.8),  # the heads of the first exits take 0.2 ms, which the last step pays and this one not
        ((40.0, 40.0, 3.0), 2.8),  # the last step is slower than any before it
    ],
)
def test_a_budget_that_the_whole_network_keeps_needs_no_early_exit(
    tiny_artifact: Build,
    samples: ArraySamples,
    monkeypatch: pytest.MonkeyPatch,
    exit_ms: tuple[float, float, float],
    whole_ms: float,
) -> None:
    monkeypatch.setattr("sdcompress.calibration.tuning.stage_ms", lambda engine, samples: (1.0, 1.0, 1.0))
    timed(monkeypatch, exit_ms=exit_ms, whole_ms=whole_ms)
    certificate, policy, out = certified(tiny_artifact, samples, budget_ms=2.9)
    assert certificate.levels[0].certified > 0
    assert policy.thresholds == certificate.path[0] == (2.0, 2.0)
    assert (policy.mean_ms, policy.whole_ms) == pytest.approx((2.8, 2.8))
    assert policy.metric == policy.reference_metric
    assert verify_certificate(open_artifact(out)) == certificate


@pytest.mark.parametrize("unlabelled", [False, True])
def test_too_few_samples_are_refused_with_the_number_that_is_needed(
    tiny_artifact: Build, tiny_network: Any, unlabelled: bool
) -> None:
    wish = recipe.Calibrate(max_drop=0.01, confidence=0.95, unlabelled=unlabelled)
    least = least_samples(wish, Classification(("a", "b", "c")))
    assert least == (358 if unlabelled else 367)
    cascade = tiny_artifact()
    with pytest.raises(DataError, match=f"has {least - 1} samples: too few to certify a drop of 1.00%") as caught:
        calibrate(cascade, cascade.parent / "out", samples=tiny_network.samples(least - 1), settings=wish)
    assert f"at least {least} " in caught.value.allowed
    assert f"about {2331 if unlabelled else 3189} where half" in caught.value.allowed
    assert "--plan" in caught.value.next_step
    assert not (cascade.parent / "out").exists()
    calibrate(cascade, cascade.parent / "out", samples=tiny_network.samples(least), settings=wish)


def test_missing_labels_are_refused_with_the_way_without(tiny_artifact: Build, samples: ArraySamples) -> None:
    labels = samples.targets.copy()
    labels[:7] = -1
    with pytest.raises(DataError, match="from -1 to 2") as caught:
        certified(tiny_artifact, ArraySamples(samples.examples(np.arange(4000)), labels))
    assert "--unlabelled" in caught.value.next_step


def test_logits_that_are_not_finite_are_refused(
    tiny_artifact: Build, samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = tiny_artifact()
    engine = open_engine(cascade, threads=1)
    whole = type(engine).exits

    def broken(self: Any, inputs: Any) -> Any:
        logits = whole(self, inputs)
        logits[0, 0, 0] = np.nan
        return logits

    monkeypatch.setattr(type(engine), "exits", broken)
    with pytest.raises(VerificationError, match="not finite"):
        calibrate(cascade, cascade.parent / "out", samples=samples, settings=recipe.Calibrate(confidence=0.9))
    assert not (cascade.parent / "out").exists()


def test_a_confidence_that_is_nan_neither_leaves_nor_counts_as_left(certified_artifact: Path) -> None:
    evidence = open_artifact(certified_artifact).evidence()
    evidence.scores[:, :10] = np.nan
    assert (excess_losses(evidence, (0.0, 0.0))[:10] == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"confidence": 0.4},
        {"confidence": 1.0},
        {"max_drop": 0.0},
        {"max_drop": 1.0},
        {"extra_drops": (0.0,)},
        {"budget_ms": 0.0},
        {"confidence": None, "unlabelled": True},
        {"confidence": None, "extra_drops": (0.01,)},
        {"confidence": None, "budget_ms": 3.0},
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe.Calibrate(**{"confidence": 0.9, **settings})


def test_without_a_confidence_there_is_no_certificate(tiny_artifact: Build, samples: ArraySamples) -> None:
    cascade = tiny_artifact()
    manifest = calibrate(cascade, cascade.parent / "out", samples=samples, settings=recipe.Calibrate())
    assert manifest.certificate is None
    assert manifest.policy is not None
    assert manifest.policy.guarantee == "none"
    text = (cascade.parent / "out" / "manifest.json").read_text(encoding="utf-8")
    assert Manifest.model_validate_json(text) == manifest
    assert sorted(path.name for path in (cascade.parent / "out").iterdir()) == sorted(
        path.name for path in cascade.iterdir()
    )
