"""evaluate: compute the metric of every exit on a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, say, table, write_json
from sdcompress.cli.options import (
    AllowUncertified,
    AnyBackend,
    DataDir,
    Device,
    FreeThreads,
    Json,
    TrustModules,
    check_one,
    threads_or_default,
)

if TYPE_CHECKING:
    from sdcompress.schema.report import Evaluation

__all__ = ["evaluate"]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="a checkpoint, the folder of a training run, or an artifact")],
    split: Annotated[
        Literal["validation", "test"] | None, typer.Option("--split", help="split of the data set; default: test")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="others instead: a folder with a folder for each class, or a table")
    ] = None,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    backend: AnyBackend = None,
    device: Device = None,
    allow_uncertified: AllowUncertified = False,
    trust_modules: TrustModules = False,
    download: Annotated[
        bool,
        typer.Option("--download", help="download a missing data set to --data-dir or the recipe's folder"),
    ] = False,
    json: Json = False,
) -> None:
    """Compute the metric of every exit, of their ensemble, and of the exit policy as it runs.

    Example: sdcompress evaluate runs/digits/train/byot --split validation
    Other samples: sdcompress evaluate artifacts/early-exit --samples photos
    """
    from sdcompress.options import Options

    both = split is not None and samples is not None
    check_one("--split", "--samples", both=both, allowed="one: the samples take the place of a split")
    with bar("evaluate") as progress:
        result = sdcompress.evaluate(
            folder,
            Options(
                backend=backend,
                threads=threads_or_default(threads),
                device=device,
                allow_uncertified=allow_uncertified,
                trust_modules=trust_modules,
                data_dir=data_dir,
                download=download,
                progress=progress,
            ),
            split=split or "test",
            samples=samples,
        )
    if json:
        write_json(result.model_dump(mode="json"))
    else:
        _show(result)


def _show(result: Evaluation) -> None:
    """Print the metric of every exit and stratum, and the most frequent confusions."""
    from sdcompress.reporting.report.strata import confusions, stratum_cautions, stratum_table
    from sdcompress.reporting.report.tables import further, title_of

    rows = [
        [
            score.name,
            f"{score.metric:.2%}",
            *([] if score.balanced_metric is None else [f"{score.balanced_metric:.2%}"]),
            *(further(name, value) for name, value in score.further.items()),
            "-" if score.macs is None else f"{score.macs / 1e6:.2f} M",
        ]
        for score in result.exits
    ]
    names = [title_of(name) for name in result.exits[0].further]
    balances = [] if result.exits[0].balanced_metric is None else ["balanced"]
    table(
        ["exit", result.metric_name, *balances, *names, "MACs"],
        rows,
        f"{result.source} on {result.data}/{result.split}",
    )
    balanced = "" if result.balanced_metric is None else f"; balanced {result.metric_name} {result.balanced_metric:.2%}"
    say(f"{result.samples} samples{balanced}")
    if result.policy:
        shares = ", ".join(
            f"{score.name} {share:.1%}" for score, share in zip(result.exits, result.policy.shares, strict=False)
        )
        more = "".join(f", {title_of(name)} {further(name, value)}" for name, value in result.policy.further.items())
        say(f"early exit: {result.metric_name} {result.policy.metric:.2%}{more}; exits {shares}")
    for drawn in (stratum_table(result), confusions(result)):
        if drawn:
            table(list(drawn.columns), [list(row) for row in drawn.rows], drawn.title)
            say(drawn.note)
    for _, sentence in stratum_cautions(result):
        say(f"caution: {sentence}")
