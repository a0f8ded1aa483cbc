"""The Open Inference Protocol, version 2, over REST: requests, responses, and the binary tensor extension."""
