"""Run segments on a device, in whose memory the tensors stay between segments."""
