"""Every step of a recipe, once: ``sdcompress run``."""
