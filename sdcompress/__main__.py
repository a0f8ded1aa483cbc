"""``python -m sdcompress``, which torchrun needs."""

from __future__ import annotations

import sys

if not getattr(sys.flags, "safe_path", False):
    # Python has put the working directory first; a numpy.py in a stranger's folder must not be ours
    del sys.path[0]

from sdcompress.cli import main

main()
