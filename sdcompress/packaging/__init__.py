"""Packages of an artifact for other inference services, one file a target; no torch. See docs/triton.md."""
