"""verify, sign and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdcompress.cli.options import Json, Threads
from sdcompress.cli.screen import say, write_json

__all__ = ["VERBS"]

Artifact = Annotated[Path, typer.Argument(help="folder of an artifact")]


def verify(
    artifact: Artifact,
    key: Annotated[
        Path | None, typer.Option("--key", help="PEM file: public key or certificates of who must have signed it")
    ] = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Prove an artifact on this machine, without torch: its files, and its logits on the golden samples.

    Says what was proved here and what is only claimed. With --key it must be signed (exit code 4 if it is not).

    Example: sdcompress verify artifacts/early-exit --key public.pem
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_verdicts

    found = api.verify(artifact, threads=threads, key=key)
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_verdicts(found)


def sign(
    artifact: Artifact,
    key: Annotated[Path, typer.Option("--key", help="PEM file of a private key: NIST P-256, P-384 or P-521")],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM file of the key's certificate; default: a key alone")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option("--chain", help="PEM file of a certificate above that one; repeatable")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a signature that is there")] = False,
    json: Json = False,
) -> None:
    """Sign an artifact, offline: writes model.sig into it (OpenSSF model signing); 'verify --key' checks it.

    Example: sdcompress sign artifacts/early-exit --key private.pem
    """
    from sdcompress import api

    found = api.sign(artifact, key, certificate=certificate, chain=chain or (), overwrite=overwrite)
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        say(f"{artifact}: signed ({found.signer}); all of it but model.sig, and as it is now")


def inspect(artifact: Artifact, json: Json = False) -> None:
    """Show what an artifact is: exits, costs, policy, where it comes from.

    Example: sdcompress inspect artifacts/early-exit
    """
    from sdcompress.artifact.read import open_artifact
    from sdcompress.cli.tables import show_manifest

    manifest = open_artifact(artifact).manifest
    if json:
        write_json(manifest.model_dump(mode="json"))
    else:
        show_manifest(manifest, str(artifact))


VERBS = (verify, sign, inspect)
