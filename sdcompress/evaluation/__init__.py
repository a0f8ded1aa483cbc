"""Evaluation: the metric of every exit, of their ensemble and of the policy, for a checkpoint or an artifact."""
