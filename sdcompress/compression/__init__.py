"""Search how to deploy a trained network: which exits to keep, where to truncate, which precision and policy."""
