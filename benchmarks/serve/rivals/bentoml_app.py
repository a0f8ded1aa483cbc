"""BentoML with onnxruntime."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, traffic={"timeout": 60})
class Network:
    """One graph."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["NETWORK"], options, providers=["CPUExecutionProvider"])
        self.shape = [size if isinstance(size, int) else -1 for size in self.session.get_inputs()[0].shape]

    @bentoml.api
    def predict(self, data: np.ndarray) -> np.ndarray:
        """Run it."""
        return self.session.run(None, {"input": data.astype(np.float32).reshape(self.shape)})[0]
