"""package: write what another inference service needs to run an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sdcompress
from sdcompress.cli.console import say, write_json
from sdcompress.cli.options import AllowUncertified, Json, Out, Overwrite, complete_from

__all__ = ["package"]


def package(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="one of 'sdcompress list targets', which names the settings of each",
            autocompletion=complete_from("sdcompress.packaging"),
        ),
    ],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of the target, e.g. max_batch_size=64; repeatable"),
    ] = None,
    allow_uncertified: AllowUncertified = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an artifact as another inference service takes it: Triton, KServe or MLServer.

    Example: sdcompress package artifacts/early-exit --to triton --out repository
    """
    from sdcompress import recipes
    from sdcompress.options import Options
    from sdcompress.verbs.package import target_of

    target = target_of(to, recipes.parse(settings or []))
    written = sdcompress.package(
        artifact, out, to, target, Options(allow_uncertified=allow_uncertified), overwrite=overwrite
    )
    if json:
        write_json(written.model_dump(mode="json"))
        return
    first, *others = written.models
    runs = f", which runs {', '.join(others)}" if others else ""
    say(f"{out}: the model {first}{runs}; hashes in SHA256SUMS (sha256sum --check)")
    if written.guarantee:
        say(written.guarantee)
    say(*target.next_steps(out))
