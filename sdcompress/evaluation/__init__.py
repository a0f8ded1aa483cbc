"""Scores of every exit, of their ensemble and of the policy, for a checkpoint or an artifact."""
