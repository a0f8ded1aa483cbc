"""Say what a search for the best way to deploy found, in sentences and tables."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import Table
from sdcompress.schema.compression import Candidate, Compression, Finalist
from sdcompress.schema.report import Comparison

__all__ = ["candidate_table", "cautions", "facts", "finalist_table", "findings", "headline", "points"]

_SHOWN = 30  # candidates


def headline(record: Compression) -> str:
    """Return the best artifact in a sentence, or that there is none and what comes nearest."""
    best, reference_ms, target = record.winner, record.mean_ms(record.reference), record.settings.target_ms
    if best:
        name = best.candidate.name
        comparison = _comparison(record, name)
        times = "" if comparison is None else f", {q.speedup(comparison.speedup_mean)} as fast as {record.reference}"
        certified = f"it loses at most {_points(best.candidate.max_drop)} of {record.metric_name}"
        return (
            f"{name} takes {q.milliseconds(record.mean_ms(name))} in the mean{times}; {certified}, with "
            f"{q.share(record.settings.confidence)} confidence."
        )
    if target is None:
        drop = _points(record.settings.max_drop)
        return f"Nothing that was built is faster than {record.reference} and certified to lose at most {drop}."
    if reference_ms is not None and reference_ms <= target:
        return f"{record.reference} takes {q.milliseconds(reference_ms)}: it meets the target as it is."
    fastest = min(record.bench.records, key=lambda one: one.latency.mean_ms)
    return (
        f"No certified artifact takes {q.milliseconds(target)} or less; the fastest is {fastest.name} with "
        f"{q.milliseconds(fastest.latency.mean_ms)}."
    )


def findings(record: Compression) -> list[str]:
    """Return what became of the finalists, and how good the estimates were."""
    sentences = []
    if not record.candidates:
        sentences.append(
            f"No candidate could probably be certified with {q.count(record.certify_samples)} samples: hold out more "
            "(data.validation), or allow a larger drop."
        )
    for state in ("not certified", "failed"):
        names = [one.candidate.name for one in record.finalists if one.state == state]
        if names:
            sentences.append(f"{q.capitalized(state)}: {q.enumeration(names)}.")
    sentences += [f"{one.candidate.name}: {one.reason}" for one in record.finalists if one.state == "failed"]
    errors = [
        one.candidate.ms / measured - 1 for one in record.finalists if (measured := record.mean_ms(one.candidate.name))
    ]
    if errors:
        low, high = (f"{error * 100:+.0f} %" for error in (min(errors), max(errors)))
        sentences.append(f"The estimates of the measured finalists were {low} to {high} off.")
    sentences += _forms(record)
    if any(one.candidate.ensemble for one in record.finalists):
        sentences.append(
            "With 'ensemble' in a name, each exit averages with the exits before it (export --ensemble geometric). "
            f"The drop is counted from {record.reference} all the same, and may be a gain."
        )
    if best := record.winner:
        sentences.append(f"The artifact is {best.folder}; a copy is in 'best'.")
    return sentences


def _forms(record: Compression) -> list[str]:
    """Return the times of cascades that were merged to one graph, against those of their segments."""
    sentences = []
    for one in record.finalists:
        graph, segments = record.mean_ms(one.candidate.name), record.mean_ms(one.candidate.merged_from or "")
        if graph is not None and segments is not None:
            sentences.append(
                f"{one.candidate.merged_from} takes {q.milliseconds(graph)} as one graph, "
                f"{q.milliseconds(segments)} in segments."
            )
    return sentences


def cautions(record: Compression) -> list[str]:
    """Return what to know before the figures are believed."""
    sentences = ["The drops are of validation samples. Measure the best on the test split, once: sdcompress evaluate."]
    if record.searches > 1:
        confidence = record.settings.confidence
        together = max(0.0, 1 - record.searches * (1 - confidence))
        sentences.append(
            f"This is search {record.searches} in its folder, and all tested on the same validation samples: each "
            f"alone keeps {q.share(confidence)} confidence, and all together {q.share(together)} if all asked for as "
            "much. Whoever searches until something is certified has the second."
        )
    if shaky := [one.name for one in record.bench.records if not one.stable]:
        sentences.append(f"The machine was not steady while {q.enumeration(shaky)} ran; search again on a quiet one.")
    single = record.winner is not None and record.winner.candidate.layout == "single"
    if single:
        sentences.append(
            "The best does not exit early, so that its file carries no certificate: the test is recorded here."
        )
    return sentences


def facts(record: Compression) -> list[str]:
    """Return what was searched, and how the samples were shared out."""
    settings = record.settings
    aim = (
        f"at most {_points(settings.max_drop)} lost"
        if settings.target_ms is None
        else f"at most {q.milliseconds(settings.target_ms)}, as little lost as possible"
    )
    search, certify = q.count(record.search_samples), q.count(record.certify_samples)
    confidence, reference = q.share(settings.confidence), q.score(record.reference_metric)
    return [
        f"{q.count(len(record.candidates))} candidates could probably be certified; the aim was {aim}.",
        f"{search} validation samples estimated them, {certify} others certified the finalists.",
        f"Each test is at {record.delta:.2g}, so that {confidence} confidence holds for whichever finalist is best.",
        f"Drops are counted from {record.reference}: {reference} {record.metric_name} on the certification samples.",
    ]


def finalist_table(record: Compression) -> Table:
    """Return the table of the reference and the finalists."""
    rows = [_row(record, record.reference, None)]
    rows += [_row(record, one.candidate.name, one) for one in record.finalists if one.digest is not None]
    columns = ("artifact", "certified", "drop", "mean ms", "estimated ms", "speed-up (mean)", "ONNX size")
    note = (
        "Speed-up with its 95 % interval over interleaved rounds. The drop is of the certification samples; what is "
        "certified is a bound on the drop of new ones."
    )
    return Table("Finalists", columns, tuple(rows), note)


def _row(record: Compression, name: str, one: Finalist | None) -> tuple[str, ...]:
    comparison = _comparison(record, name)
    measured = record.mean_ms(name)
    faster = q.NOTHING if comparison is None else _speed(comparison)
    if one is None:
        return f"{name} (reference)", q.NOTHING, q.NOTHING, _ms(measured), q.NOTHING, faster, q.NOTHING
    bound = f"at most {_points(one.candidate.max_drop)}" if one.state == "certified" else one.state
    lost = q.NOTHING if one.drop is None else f"{one.drop * 100:+.2f} points"
    best = " (best)" if name == record.best else ""
    return f"{name}{best}", bound, lost, _ms(measured), _ms(one.candidate.ms), faster, q.megabytes(one.bytes)


def candidate_table(record: Compression) -> Table:
    """Return the table of the candidates that were estimated to be best."""
    rows = [
        (one.name, f"{one.ms:.3f}", f"{one.drop * 100:+.2f} points", _points(one.max_drop))
        for one in record.candidates[:_SHOWN]
    ]
    more = len(record.candidates) - len(rows)
    note = f"compress.json has {q.count(more)} more." if more > 0 else ""
    return Table("Candidates, as estimated", ("candidate", "ms", "drop", "to be certified"), tuple(rows), note)


def points(record: Compression) -> list[tuple[Candidate, float, float]]:
    """Return the measured finalists with their mean ms and their metric on the certification samples."""
    return [
        (one.candidate, measured, record.reference_metric - one.drop)
        for one in record.finalists
        if one.drop is not None and (measured := record.mean_ms(one.candidate.name)) is not None
    ]


def _comparison(record: Compression, name: str) -> Comparison | None:
    measured = {one.candidate.name: one.measured_as for one in record.finalists}.get(name, name)
    return next((one for one in record.bench.comparisons if one.name == measured), None)


def _speed(comparison: Comparison) -> str:
    return q.speedup(comparison.speedup_mean, comparison.mean_low, comparison.mean_high)


def _points(drop: float) -> str:
    return f"{drop * 100:g} points"


def _ms(value: float | None) -> str:
    return q.NOTHING if value is None else f"{value:.3f}"
