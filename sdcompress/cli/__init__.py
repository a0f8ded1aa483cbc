"""The command line: one thin function per verb. It parses and prints; the work is done by sdcompress.api."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0, or that of the error (see sdcompress.errors)."""
    from sdcompress.cli.app import start

    start()
