"""Parse the command line, call the verb and print its result; one file each verb."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0, or that of the error (see sdcompress.errors)."""
    from sdcompress.cli.app import start

    start()
