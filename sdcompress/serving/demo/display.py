"""Open the page in a browser, where there is a display."""

from __future__ import annotations

import os
import sys
import webbrowser
from threading import Thread

__all__ = ["open_page"]


def open_page(url: str) -> None:
    """Open a page in the user's browser, without waiting for it; nothing happens where there is no display."""
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        Thread(target=webbrowser.open, args=(url,), name="open the demo", daemon=True).start()
