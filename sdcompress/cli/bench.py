"""bench: measure the latency of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, command_line, ms, say, table, write_json
from sdcompress.cli.options import (
    AllowUncertified,
    DataDir,
    Device,
    Json,
    Overwrite,
    Threads,
    complete_from,
    milliseconds,
)
from sdcompress.errors import BenchmarkError, UsageError

if TYPE_CHECKING:
    from sdcompress.schema.report import BenchReport

__all__ = ["bench"]


def bench(
    artifacts: Annotated[list[Path], typer.Argument(help="folders of artifacts; the first is the reference")],
    samples: Annotated[
        Literal["test", "golden"],
        typer.Option("--samples", help="the test split, or the golden samples in the artifact"),
    ] = "test",
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", help="single-stream or offline; repeatable; default: both")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option("--batch-size", help="offline batch size; repeatable")] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", help="time of each artifact, scenario and batch; default: 10s")
    ] = None,
    warmup: Annotated[str | None, typer.Option("--warmup", help="untimed calls before each; default: 200ms")] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=5, help="interleaved rounds over all artifacts; default: 10")
    ] = None,
    clock: Annotated[
        Literal["wall", "thread"] | None,
        typer.Option(
            "--clock",
            help="wall, or thread: its processor time, for a machine that is busy; default: wall",
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="folder name of the reference")] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            help="of 'sdcompress list backends'; several with commas between them; or all; default: onnxruntime",
            autocompletion=complete_from("sdcompress.runtime.backends"),
        ),
    ] = None,
    device: Device = None,
    allow_uncertified: AllowUncertified = False,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="folder of a copy of the artifact that keeps these times, for the backend auto"),
    ] = None,
    overwrite: Overwrite = False,
    require_stable: Annotated[
        bool, typer.Option("--require-stable", help="exit code 5 if a measurement is not stable, e.g. in CI")
    ] = False,
    json: Json = False,
) -> None:
    """Measure latency in interleaved rounds: percentiles, exit shares, and ratios with confidence intervals.

    Example: sdcompress bench artifacts/full artifacts/early-exit --duration 10s --json > bench.json
    """
    from sdcompress.options import Options

    settings = _settings(
        scenarios=scenario,
        batch_sizes=batch_size,
        warmup_ms=None if warmup is None else milliseconds(warmup, "--warmup"),
        duration_s=None if duration is None else milliseconds(duration, "--duration") / 1000,
        rounds=rounds,
        clock=clock,
    )
    with bar("bench", timed=True) as progress:
        bench_report = sdcompress.bench(
            artifacts,
            settings,
            Options(
                backend=backend,
                threads=threads,
                device=device,
                allow_uncertified=allow_uncertified,
                data_dir=data_dir,
                progress=progress,
                command=command_line(),
            ),
            samples=samples,
            reference=reference,
            record=record,
            overwrite=overwrite,
        )
    if json:
        write_json(bench_report.model_dump(mode="json"))
    else:
        _show(bench_report)
    if require_stable:
        _check_stable(bench_report)


def _check_stable(bench_report: BenchReport) -> None:
    """Refuse an unstable measurement, after it was printed."""
    unstable = [record for record in bench_report.records if not record.stable]
    if unstable:
        reasons = dict.fromkeys(reason for record in unstable for reason in record.reasons)
        raise BenchmarkError(
            f"{len(unstable)} of {len(bench_report.records)} measurements are not stable: {'; '.join(reasons)}.",
            allowed="only stable measurements, because of --require-stable",
            next_step="end other work, lower --threads or raise --duration, and measure again",
        )


def _settings(**overrides: Any) -> dict[str, Any]:
    """Return the options as keys of the recipe's section."""
    if overrides["batch_sizes"] and overrides["scenarios"] and "offline" not in overrides["scenarios"]:
        raise UsageError(
            "--batch-size is given, but no scenario that has batches.",
            allowed="--batch-size with the scenario offline; single-stream runs one sample at a time",
            next_step="add --scenario offline, or leave --batch-size out",
        )
    return {key: value for key, value in overrides.items() if value is not None}


def _show(bench_report: BenchReport) -> None:
    """Print the latency of every artifact, of the run and end to end, and the ratios."""
    from sdcompress.reporting.quantities import three_digits
    from sdcompress.reporting.report.findings import noise
    from sdcompress.reporting.report.tables import prediction

    rows = []
    for record in bench_report.records:
        values = {p.percent: p for p in record.latency.percentiles}
        rows.append(
            [
                record.name,
                record.scenario,
                str(record.batch),
                *(ms(values[p].value_ms if p in values else None) for p in (50.0, 99.0)),
                ms(record.latency.mean_ms),
                ms(record.preparation.mean_ms if record.preparation else None),
                ms(record.end_to_end_ms),
                three_digits(record.samples_per_second),
                "yes" if record.stable else "no",
            ]
        )
    columns = ["artifact", "scenario", "batch", "run p50 ms", "run p99 ms", "run mean ms", "preparation ms"]
    table([*columns, "end to end ms", "samples/s", "stable"], rows)
    for ratio in bench_report.comparisons:
        say(
            f"{ratio.name} compared with {ratio.reference}, {ratio.scenario}, batch {ratio.batch}: "
            f"mean {ratio.speedup_mean:.2f}x [{ratio.mean_low:.2f}, {ratio.mean_high:.2f}] ({ratio.verdict}), "
            f"p50 {ratio.speedup_p50:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
            + _end_to_end(ratio.speedup_end_to_end, ratio.end_to_end_low, ratio.end_to_end_high)
        )
    for record in bench_report.records:
        if predicted := prediction(record):
            say(f"{record.name}: {predicted}")
    _show_backends(bench_report)
    if sentence := noise(bench_report.records):
        say(sentence)
    clock = "" if bench_report.clock == "wall" else ", its processor time instead of the time on the clock"
    say(f"{bench_report.machine.cpu}, {bench_report.threads} thread(s){clock}, {bench_report.input}")
    if bench_report.preparation:
        say(f"preparation: {bench_report.preparation}")


def _show_backends(bench_report: BenchReport) -> None:
    """Print which backend is the fastest for each artifact, and why others were not measured."""
    names = list(dict.fromkeys(name for one in bench_report.backend_comparisons for name in one.mean_ms))
    rows = [
        [
            one.name,
            one.scenario,
            str(one.batch),
            *(ms(one.mean_ms.get(name)) for name in sorted(names)),
            next(iter(one.mean_ms)) if one.verdict == "faster" else "no difference",
            f"{one.speedup:.2f}x [{one.low:.2f}, {one.high:.2f}]",
        ]
        for one in bench_report.backend_comparisons
    ]
    if rows:
        columns = ["artifact", "scenario", "batch", *(f"{name}, mean ms" for name in sorted(names))]
        table([*columns, "fastest", "than the second"], rows, "Backends")
    for name, why in bench_report.left_out.items():
        say(f"{name} was not measured: {why}")


def _end_to_end(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f", end to end {value:.2f}x [{low:.2f}, {high:.2f}]"
