"""Open the page in a browser, where there is a display."""

from __future__ import annotations

import logging
import os
import sys
import webbrowser
from threading import Thread

__all__ = ["open_page"]

_LOG = logging.getLogger(__name__)


def open_page(url: str) -> None:
    """Log where a page is, and open it in the user's browser where there is a display, without waiting for it."""
    _LOG.info("demo", extra={"url": url})
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        Thread(target=webbrowser.open, args=(url,), name="open the demo", daemon=True).start()
