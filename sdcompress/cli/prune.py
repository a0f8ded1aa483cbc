"""prune: remove channels of a trained network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import bar, say, table, write_json
from sdcompress.cli.options import DataDir, Json, Out, Overwrite, TrustModules, in_data_dir

if TYPE_CHECKING:
    from sdcompress.schema.pruning import Pruned, PruningRound
    from sdcompress.schema.recipe import Recipe

__all__ = ["prune", "show_pruned", "show_rounds"]


def prune(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint, or the folder of a training run")],
    out: Out,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="COST",
            help="of the network to its last exit, e.g. macs=50%, parameters=1.2M, ms=0.8 or ms=60% [prune.target]",
        ),
    ] = None,
    importance: Annotated[
        str | None, typer.Option("--importance", help="magnitude, taylor or bn_scale [prune.importance]")
    ] = None,
    ranking: Annotated[
        str | None, typer.Option("--ranking", help="global, or layer: the same share of each [prune.ranking]")
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", help="layers keep a multiple of so many channels [prune.round_to]")
    ] = None,
    batches: Annotated[int | None, typer.Option("--batches", help="of samples for taylor [prune.batches]")] = None,
    normalised: Annotated[
        bool | None,
        typer.Option(
            "--normalised/--not-normalised",
            help="also channels that a layer norm or group norm computes a statistic of [prune.normalised]",
        ),
    ] = None,
    data_dir: DataDir = None,
    trust_modules: TrustModules = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Remove the least important channels, attention heads and hidden units of a trained network.

    The new checkpoint is less accurate: fine-tune it by 'train' with model.weights. The last line says how.

    Example: sdcompress prune runs/digits --target macs=50% --out pruned
    """
    from sdcompress.options import Options

    given = {
        "target": target,
        "importance": importance,
        "ranking": ranking,
        "round_to": round_to,
        "batches": batches,
        "normalised": normalised,
    }
    with bar("prune") as progress:
        result = sdcompress.prune(
            checkpoint,
            out,
            {name: value for name, value in given.items() if value is not None},
            Options(data_dir=data_dir, trust_modules=trust_modules, progress=progress),
            overwrite=overwrite,
        )
    pruned = result.state.pruned
    assert pruned is not None
    if json:
        write_json(pruned.model_dump(mode="json"))
        return
    show_pruned(pruned)
    say(f"next: {_fine_tuning(checkpoint, out, result.recipe)}{in_data_dir(data_dir)}")


def _fine_tuning(whole: Path, pruned: Path, trained: Recipe) -> str:
    """Return the command that trains what is left, with the network before as its teacher."""
    recipe = whole / "recipe.yaml"  # beside a training, not beside a pruned checkpoint
    settings = [f"model.weights={pruned}", "method=trained_teacher", f"method.teacher={whole}"]
    # what the whole network started from does not hold for the pruned one
    settings += ["model.pretrained=false"] if trained.model.pretrained else []
    settings += ["model.match=name"] if trained.model.match != "name" else []
    given = [part for setting in settings for part in ("--set", setting)]
    named = str(recipe) if recipe.is_file() else "RECIPE"
    return shlex.join(["sdcompress", "train", "-c", named, *given, "--out", "FOLDER"])


def show_pruned(pruned: Pruned) -> None:
    """Print each round of pruning, and what of each layer is left."""
    show_rounds(pruned.rounds)
    kept = [f"{name} {left} of {of}" for name, left, of in pruned.layers]
    say(f"channels kept: {', '.join(kept)}")


def show_rounds(rounds: tuple[PruningRound, ...]) -> None:
    """Print each round of pruning with the cost before and after."""
    rows = []
    for number, round_ in enumerate(rounds, start=1):
        before, after = round_.before, round_.after
        rows.append(
            [
                str(number),
                f"{before.macs / 1e6:.2f} M -> {after.macs / 1e6:.2f} M ({after.macs / before.macs:.0%})",
                f"{before.parameters / 1e3:.1f} k -> {after.parameters / 1e3:.1f} k",
                "-" if before.ms is None or after.ms is None else f"{before.ms:.3g} -> {after.ms:.3g}",
                f"{round_.settings.importance}, {round_.settings.ranking}",
                round_.parent[:12],
            ]
        )
    table(["round", "MACs", "parameters", "ms", "by", "weights before"], rows, "pruned, to the last exit")
