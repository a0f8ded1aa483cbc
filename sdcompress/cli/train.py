"""train: train the network of a recipe."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, epoch_line, note, say, write_json
from sdcompress.cli.options import (
    DataDir,
    Json,
    Overwrite,
    PrintConfig,
    RecipeFile,
    Set,
    as_settings,
    check_one,
    complete_from,
    complete_method,
    complete_model,
)

if TYPE_CHECKING:
    from sdcompress.checkpoint import Checkpoint
    from sdcompress.schema.recipe import Recipe

__all__ = ["OutFolder", "TrainThreads", "print_config_of", "train"]

Method = Annotated[
    str | None,
    typer.Option("--method", help="method of 'sdcompress list methods' [method]", autocompletion=complete_method),
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="backbone, e.g. timm:resnet18 [model.name]", autocompletion=complete_model)
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="data set of 'sdcompress list data' [data.name]",
        autocompletion=complete_from("sdcompress.data.sources"),
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="[train.epochs]")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="[train.batch_size]")]
Lr = Annotated[float | None, typer.Option("--lr", help="[train.optimizer.lr]")]
Seed = Annotated[int | None, typer.Option("--seed", help="[seed]")]
Extends = Annotated[Path | None, typer.Option("--from", help="a run to extend, with --epochs; its own recipe is used")]
TrainThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads; default: as the run began, or those that are free [train.threads]",
    ),
]
TrainDevice = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option("--device", help="default: the best available [train.device]"),
]
OutFolder = Annotated[Path | None, typer.Option("--out", "-o", help="folder of the run")]


def train(
    config: RecipeFile = None,
    set_: Set = None,
    method: Method = None,
    model: ModelName = None,
    data: DataName = None,
    data_dir: DataDir = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    seed: Seed = None,
    extends: Extends = None,
    threads: TrainThreads = None,
    device: TrainDevice = None,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    print_config: PrintConfig = False,
    json: Json = False,
) -> None:
    """Train a network with exits by self-distillation. A training that was stopped continues where it stopped.

    Example: sdcompress train -c digits --epochs 10 --out runs/my-digits
    Longer: sdcompress train --from runs/my-digits --epochs 20
    """
    settings = as_settings(
        set_,
        method=method,
        model__name=model,
        data__name=data,
        data__dir=data_dir,
        train__epochs=epochs,
        train__batch_size=batch_size,
        train__optimizer__lr=lr,
        seed=seed,
        train__threads=threads,
        train__device=device,
    )
    if print_config:
        from sdcompress.checkpoint import open_checkpoint

        both = extends is not None and config is not None
        check_one("--from", "--config", both=both, allowed="one: a run is extended by its own recipe")
        print_config_of(open_checkpoint(extends).recipe if extends else config, settings, as_json=json)
        return

    begin = partial(sdcompress.train, config, out, settings=settings, extends=extends, overwrite=overwrite)
    if os.environ.get("RANK", "0") != "0":  # only one process of torchrun prints
        begin()
        return
    with bar("train") as progress:
        checkpoint = begin(
            progress=progress,
            on_epoch=epoch_line,
            on_start=note,
            on_check=partial(progress, doing="check the data"),
        )
    _show_checkpoint(checkpoint, as_json=json)


def _show_checkpoint(checkpoint: Checkpoint, *, as_json: bool) -> None:
    state, run_folder = checkpoint.state, checkpoint.path.parent.parent
    if as_json:
        facts = state.model_dump(mode="json", exclude={"recipe", "optimizer", "scaler"})
        write_json({"checkpoint": str(checkpoint.path), "run": str(run_folder), **facts})
        return
    from sdcompress import methods

    say(f"{run_folder}: {state.epoch} epochs, {state.step} steps, {state.samples} training samples")
    for one in state.extensions:
        say(f"extended at step {one.step}; before it, the learning rates were those of {one.epochs} epochs")
    run, method = shlex.quote(str(run_folder)), state.recipe.method
    layout = "cascade" if methods.build(method).needs.exits else "single"
    artifact = shlex.quote(f"artifacts/{method.name}-{layout}")
    say(f"next: sdcompress evaluate {run}", f"      sdcompress export {run} --layout {layout} --out {artifact}")


def print_config_of(source: str | Recipe | None, settings: list[Any], *, as_json: bool) -> None:
    """Print the resolved recipe."""
    from sdcompress import recipes

    recipe = recipes.read(source, settings)
    if as_json:
        write_json(recipe.model_dump(mode="json"))
    else:
        say(*recipes.dump(recipe).rstrip().split("\n"))
