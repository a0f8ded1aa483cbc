"""Speak the Open Inference Protocol over gRPC, in the event loop of the HTTP server."""
