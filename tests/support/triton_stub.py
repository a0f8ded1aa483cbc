"""Triton's python backend without Triton: the part of ``triton_python_backend_utils`` that packaged programs use.

A repository is read by Triton's own type of configuration, and its graphs run in onnxruntime. Like Triton's core it
gives rows without axes one axis, lets only the wished outputs out, and schedules released requests again.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

__all__ = ["RESCHEDULE", "Repository", "Request", "read_config"]

START, ALL, RESCHEDULE = 1, 1, 2


def read_config(path: Path) -> Any:
    """Parse config.pbtxt as Triton does: an unknown field is an error."""
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        assert array.flags.c_contiguous
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Any = None) -> None:
        self.tensors, self._error = {tensor.name(): tensor for tensor in output_tensors}, error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Any:
        return self._error


class Request:
    """What ``execute`` is given: inputs, and a correlation id where it belongs to a sequence."""

    def __init__(self, inputs: Mapping[str, Any], correlation_id: int = 0, flags: int = START) -> None:
        self.tensors = {name: Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()}
        self._id, self._flags, self.release, self.cancelled = correlation_id, flags, ALL, False

    def correlation_id(self) -> int:
        return self._id

    def flags(self) -> int:
        return self._flags

    def is_cancelled(self) -> bool:
        return self.cancelled

    def set_release_flags(self, flags: int) -> None:
        self.release = flags

    def again(self) -> Request:
        request = Request({}, self._id, flags=0)
        request.tensors = self.tensors
        return request


class ModelError(Exception):
    INTERNAL, CANCELLED = 1, 6

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code

    def message(self) -> str:
        return str(self)


class Repository:
    """The models in a folder.

    Args:
        folder: of the repository.
        version: of the models.
    """

    def __init__(self, folder: Path, version: int = 1) -> None:
        self.folder, self.version = folder, version
        self.configs = {path.parent.name: read_config(path) for path in folder.glob("*/config.pbtxt")}
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.rows: list[tuple[str, int]] = []  # of each call of a graph

    def run(self, model: str, inputs: Mapping[str, Any], wanted: list[str] | None = None) -> dict[str, Any]:
        """Outputs of a graph, by name, as a client sees them; inputs are checked against the configuration."""
        config = self.configs[model]
        self.rows.append((model, len(next(iter(inputs.values())))))
        feed = {}
        assert inputs.keys() == {port.name for port in config.input}
        for port in config.input:
            array = inputs[port.name]
            self._check(config, port, array)
            feed[port.name] = array.reshape(len(array)) if port.HasField("reshape") else array
        if model not in self.sessions:
            file = self.folder / model / str(self.version) / config.default_model_filename
            self.sessions[model] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = wanted or [port.name for port in config.output]
        outputs = dict(zip(names, self.sessions[model].run(names, feed), strict=True))
        for port in config.output:
            if port.name in outputs:
                array = outputs[port.name]
                outputs[port.name] = array.reshape(len(array), 1) if port.HasField("reshape") else array
                self._check(config, port, outputs[port.name])
        return outputs

    def program(self, model: str, monkeypatch: Any) -> Program:
        """The model of a program, ready to execute."""
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", self._utils())
        config = self.configs[model]
        file = self.folder / model / str(self.version) / config.default_model_filename
        module = types.ModuleType("model")
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
        return Program(self, config, module.TritonPythonModel())

    @staticmethod
    def _check(config: Any, port: Any, array: Any) -> None:
        kinds = {"TYPE_FP16": "f2", "TYPE_FP32": "f4", "TYPE_INT64": "i8", "TYPE_INT32": "i4", "TYPE_UINT8": "u1"}
        assert array.dtype == np.dtype(kinds[model_config_pb2.DataType.Name(port.data_type)]), port.name
        shape = array.shape[1:] if config.max_batch_size else array.shape
        assert len(shape) == len(port.dims), (port.name, shape)
        assert all(size in {-1, axis} for size, axis in zip(port.dims, shape, strict=True)), (port.name, shape)
        assert not config.max_batch_size or len(array) <= config.max_batch_size

    def _utils(self) -> types.ModuleType:
        repository = self

        class InferenceRequest:
            def __init__(self, *, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any):
                self.model, self.wanted, self.inputs = model_name, requested_output_names, inputs

            def exec(self) -> Response:
                given = {tensor.name(): tensor.as_numpy() for tensor in self.inputs}
                try:
                    outputs = repository.run(self.model, given, self.wanted)
                except KeyError as error:
                    return Response([], ModelError(f"unknown model {error}"))
                return Response([Tensor(name, array) for name, array in outputs.items()])

        utils: Any = types.ModuleType("triton_python_backend_utils")
        utils.Tensor, utils.InferenceResponse, utils.InferenceRequest = Tensor, Response, InferenceRequest
        utils.TritonModelException = utils.TritonError = ModelError
        utils.PreferredMemory, utils.TRITONSERVER_MEMORY_CPU = (lambda kind: kind), 0
        utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = START
        utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = RESCHEDULE
        utils.get_input_tensor_by_name = utils.get_output_tensor_by_name = lambda holder, name: holder.tensors[name]
        return utils


class Program:
    """A model of the python backend."""

    def __init__(self, repository: Repository, config: Any, model: Any) -> None:
        self.repository, self.config, self.model = repository, config, model
        if hasattr(model, "initialize"):
            model.initialize({})

    def __call__(self, *batches: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers to requests that Triton has joined, by the names of the outputs."""
        requests = [Request(inputs, at) for at, inputs in enumerate(batches)]
        answers: dict[int, Any] = {}
        while requests:
            responses = self.model.execute(requests)
            assert len(responses) == len(requests)
            waiting = []
            for request, response in zip(requests, responses, strict=True):
                assert (response is None) == (request.release == RESCHEDULE)
                if response is None:
                    waiting.append(request.again())
                else:
                    answers[request.correlation_id()] = response
            requests = waiting
        return [self._named(answers[at]) for at in range(len(batches))]

    def _named(self, response: Any) -> dict[str, Any]:
        assert response.tensors.keys() == {port.name for port in self.config.output}
        for port in self.config.output:
            self.repository._check(self.config, port, response.tensors[port.name].as_numpy())
        return {name: tensor.as_numpy() for name, tensor in response.tensors.items()}
