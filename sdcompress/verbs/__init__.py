"""The verbs, a file each: every caller's one way to do it. ``sdcompress.api`` lists them."""
