"""``python -m sdcompress``, which torchrun needs."""

from __future__ import annotations

from sdcompress.cli import main

main()
