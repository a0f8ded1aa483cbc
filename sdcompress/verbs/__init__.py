"""Define verbs as Python calls, a file each; ``sdcompress`` lists all verbs, also those that their rooms define."""
