"""The pieces that methods are made of: labels, logit teachers, divergences, feature distances."""
