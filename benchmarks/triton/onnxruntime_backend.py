"""Stand in for Triton's C++ backend onnxruntime, on a CPU: the same config.pbtxt and the same folders.

The server of PyPI's nvidia-pytriton has no other backend than that for Python. This file as ``model.py`` in the folder
``onnxruntime`` of the backends lets it load repositories unchanged. It is for this comparison, not for production.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One graph; requests that Triton has joined run as one batch."""

    @staticmethod
    def auto_complete_config(config):
        """Return the configuration as it is: packages write all of it."""
        return config

    def initialize(self, args):
        """Load the graph."""
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "0")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.inputs = [port["name"] for port in config["input"]]
        self.outputs = [port["name"] for port in config["output"]]
        self.batches = config["max_batch_size"] > 0

    def execute(self, requests):
        """Answer the requests."""
        feeds = [self._feed(request) for request in requests]
        if not self.batches:
            return [self._response(self.session.run(self.outputs, feed)) for feed in feeds]
        ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        parts = [np.split(array, ends) for array in self.session.run(self.outputs, joined)]
        return [self._response(arrays) for arrays in zip(*parts, strict=True)]

    def _feed(self, request):
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}

    def _response(self, arrays):
        pairs = zip(self.outputs, arrays, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in pairs])
