"""Protobuf text format, read back by protobuf itself."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sdcompress.packaging._pbtxt import Enum, pbtxt


def test_protobuf_reads_back_what_was_written() -> None:
    name = 'a "quote", a \\ backslash,\na line, a tab\t, ein Wort für ∑ and \x01'
    text = pbtxt(
        {
            "name": name,
            "max_batch_size": 4,
            "input": [{"name": "x", "data_type": Enum("TYPE_FP16"), "dims": (-1, 3)}, {"name": "y", "reshape": {}}],
            "output": [],
            "sequence_batching": {"iterative_sequence": True},
            "instance_group": [{"profile": ("0", name)}],
        }
    )
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.name == name
    assert config.max_batch_size == 4
    assert [list(port.dims) for port in config.input] == [[-1, 3], []]
    assert config.input[0].data_type == model_config_pb2.TYPE_FP16
    assert config.input[1].HasField("reshape")
    assert config.sequence_batching.iterative_sequence
    assert list(config.instance_group[0].profile) == ["0", name]
