"""verify: check an artifact on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import say, table, write_json
from sdcompress.cli.options import Backend, Device, Json, Threads

if TYPE_CHECKING:
    from sdcompress.schema.report import CertificateVerdict, VerifyReport

__all__ = ["verify"]


def verify(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    key: Annotated[
        Path | None, typer.Option("--key", help="PEM file: public key or certificates of the required signer")
    ] = None,
    threads: Threads = None,
    backend: Backend = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Check an artifact on this machine, without torch: its files, and its outputs on the golden samples.

    Prints what was checked here and what is only claimed. With --key it must be signed (exit code 4 if it is not).

    Example: sdcompress verify artifacts/early-exit --key public.pem
    """
    result = sdcompress.verify(
        artifact, threads=threads or 1, backend=backend or "onnxruntime", device=device or "cpu", key=key
    )
    if json:
        write_json(result.model_dump(mode="json"))
    else:
        _show(result)


def _show(result: VerifyReport) -> None:
    """Print the outcome of a verification."""
    rows = [
        [v.name, f"{v.max_abs_diff:.1e}", f"{v.batch_max_abs_diff:.1e}", f"{v.tolerance:.1e}", str(v.flips)]
        for v in result.exits
    ]
    table(["exit", "largest difference", "between batches", "allowed", "flips"], rows)
    say(
        f"{result.source}: intact ({result.files} files), verified on {result.samples} golden samples by "
        f"{result.backend} on {result.device}"
    )
    if result.one_graph:
        say("model.onnx: same exits and decisions as the segments on them")
    if result.certificate:
        _show_certificate_verdict(result.certificate)
    for title, sentences in (("checked here", result.proved), ("only claimed by its author", result.claimed)):
        say(f"{title}:")
        for sentence in sentences:
            say(f"  - {sentence}")
    if result.signature:
        say(f"signed by the holder of '{result.signature.key}', who vouches for these claims")
    else:
        say("no signature was checked (--key): anyone who can write the folder can write all of this")


def _show_certificate_verdict(result: CertificateVerdict) -> None:
    from sdcompress.cli.inspect import in_every

    nothing = "nothing" if result.reference else "no drop (no early exit)"
    kept = ", ".join(f"{drop:.2%}" for drop in result.certified) or nothing
    other = f" compared with the last exit of the artifact {result.reference[:12]}" if result.reference else ""
    say(
        f"certificate: {result.tests} tests on {result.samples} samples were repeated with the same result: {kept} of "
        f"{result.loss}{in_every(result.group_by)}{other} at {result.confidence:.4g} confidence"
    )
