"""sign: sign an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sdcompress
from sdcompress.cli.console import say, write_json
from sdcompress.cli.options import Json

__all__ = ["sign"]


def sign(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    key: Annotated[Path, typer.Option("--key", help="PEM file of a private key: NIST P-256, P-384 or P-521")],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM file of the key's certificate; default: no certificate")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option("--chain", help="PEM file of an intermediate certificate; repeatable")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing signature")] = False,
    json: Json = False,
) -> None:
    """Sign an artifact, offline: write model.sig into it (OpenSSF model signing); 'verify --key' checks it.

    Example: sdcompress sign artifacts/early-exit --key private.pem
    """
    signature = sdcompress.sign(artifact, key, certificate=certificate, chain=chain or (), overwrite=overwrite)
    if json:
        write_json(signature.model_dump(mode="json"))
    else:
        say(f"{artifact}: signed ({signature.signer}): all files but model.sig, as they are now")
