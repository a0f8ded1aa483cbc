"""LitServe with onnxruntime."""

import os

import litserve
import numpy as np
import onnxruntime


class Network(litserve.LitAPI):
    """One graph."""

    def setup(self, device):  # noqa: ARG002 - LitServe passes it
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["NETWORK"], options, providers=["CPUExecutionProvider"])
        self.shape = [size if isinstance(size, int) else -1 for size in self.session.get_inputs()[0].shape]

    def decode_request(self, request):
        """Read JSON."""
        return np.array(request["data"], np.float32).reshape(self.shape)

    def predict(self, x):
        """Run it."""
        return self.session.run(None, {"input": x})[0]

    def encode_response(self, output):
        """Write JSON."""
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Network(), accelerator="cpu", workers_per_device=1, max_payload_size=2**26)
    server.run(port=int(os.environ["PORT"]), host="127.0.0.1", generate_client_file=False, log_level="error")
