"""Serve artifacts over HTTP by the Open Inference Protocol, with batches that form anew at every exit."""
