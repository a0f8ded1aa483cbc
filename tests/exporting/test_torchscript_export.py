"""Opset 16 and 17, by the older exporter: the same network, older operators, and the rest of the way as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from meaning import image_modality
from networks import SHALLOW, pictures
from torch import Tensor, nn

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import ParityError, UsageError
from sdcompress.exporting.export import export_all
from sdcompress.exporting.export_spec import ExportSpec
from sdcompress.exporting.graph import export_all_exits
from sdcompress.exporting.torchscript_export import _failure_text, torchscript_export
from sdcompress.modalities import Inputs
from sdcompress.models.build import build
from sdcompress.onnx_graph.macs import macs
from sdcompress.onnx_graph.partition import cut_segments, serialize
from sdcompress.onnx_graph.tensorrt8 import TENSORRT_8_5
from sdcompress.schema.recipe import Exits, Export, Model
from sdcompress.verification.sessions import SegmentSessions
from sdcompress.verification.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, of its older exporter

EXITS = ("exit1", "exit2", "final")


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def versions(model: onnx.ModelProto) -> tuple[int, list[tuple[str, int]]]:
    return model.ir_version, [(opset.domain, opset.version) for opset in model.opset_import]


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts of the small ResNet, at opset 16."""
    folder = tmp_path_factory.mktemp("sixteen")
    targets = [ExportSpec(folder / layout, layout) for layout in ("single", "cascade", "all")]
    export_all(checkpoint, targets, settings=Export(opset=16))
    return folder


@pytest.mark.parametrize("layout", ["single", "cascade", "all"])
def test_every_file_has_the_opset_and_passes_the_gate_like_any_other(folder: Path, layout: str) -> None:
    manifest = open_artifact(folder / layout).manifest
    assert manifest.provenance.recipe["export"]["opset"] == 16
    for segment in manifest.segments:
        model = onnx.load(folder / layout / segment.file)
        onnx.checker.check_model(model, full_check=True)
        assert versions(model) == (8, [("", 16)])
        assert all(tensor.shape[0] == "batch" for tensor in (*segment.inputs, *segment.outputs))
    assert [record.flips for record in manifest.parity] == [0] * len(manifest.exits)
    assert all(exit_.max_abs_diff <= exit_.tolerance for exit_ in verify(folder / layout).exits)


def test_a_resnet_cascade_holds_only_operators_of_tensorrt_8_5(folder: Path) -> None:
    for index in range(3):
        model = onnx.load(folder / "cascade" / f"segment-{index}.onnx")
        assert operators(model) <= TENSORRT_8_5
        stored = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:  # it wants these as weights
            if node.op_type in {"Conv", "TopK"}:
                assert node.input[1] in stored


def test_both_exporters_give_the_same_costs_and_logits(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    export_all(checkpoint, [ExportSpec(tmp_path / "new", "cascade")], settings=Export(opset=18))
    old, new = open_artifact(folder / "cascade"), open_artifact(tmp_path / "new")
    assert [segment.macs for segment in old.manifest.segments] == [segment.macs for segment in new.manifest.segments]
    assert [(exit_.name, exit_.metrics) for exit_ in old.manifest.exits] == [
        (exit_.name, exit_.metrics) for exit_ in new.manifest.exits
    ]
    np.testing.assert_array_equal(old.golden().outputs, new.golden().outputs)
    shapes = [[tensor.shape for tensor in segment.outputs] for segment in old.manifest.segments]
    assert shapes == [[tensor.shape for tensor in segment.outputs] for segment in new.manifest.segments]


# attention asks for shapes, ConvNeXt has layer norms: one operator from 17 on, several before
@pytest.mark.parametrize(
    ("name", "side"), [("timm:convnext_atto", 32), ("timm:vit_tiny_patch16_224", 32), ("timm:test_efficientnet", 64)]
)
def test_networks_of_several_families_are_cut_right(name: str, side: int) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    settings, exits = Model(name=name, options=SHALLOW.get(name, {})), Exits(count=2, head="linear")
    net = build(settings, exits, outputs=(7,), inputs=pictures(3, side, side)).eval()
    logits = [f"{exit_}_outputs" for exit_ in net.exit_names]

    def pieces(**opset: int) -> list[onnx.ModelProto]:
        graph = export_all_exits(net.logits_only(), net.exit_names, image_modality((3, side, side)), **opset)
        return list(cut_segments(graph, logits))

    newer = pieces()
    images = np.random.default_rng(0).normal(size=(5, 3, side, side)).astype(np.float32)
    for opset in (16, 17):
        older = pieces(opset=opset)
        assert {piece.ir_version for piece in older} == {8}
        norms = any("LayerNormalization" in operators(piece) for piece in older)
        assert norms == (opset == 17 and "efficientnet" not in name)
        chain = SegmentSessions([serialize(piece) for piece in older], outputs=logits, threads=1)
        for batch in (1, 5):
            with torch.no_grad():
                wanted = np.stack([exit_.numpy() for exit_ in net(torch.from_numpy(images[:batch])).logits])
            np.testing.assert_allclose(chain(Inputs({"input": images[:batch]})), wanted, atol=2e-5)
        assert [macs(piece, {"batch": 1}) for piece in older] == [macs(piece, {"batch": 1}) for piece in newer]


def test_it_is_silent_and_the_same_each_time(tiny: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = (serialize(export_all_exits(tiny, EXITS, image_modality((3, 8, 8)), opset=16)) for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


class Wrapped(nn.Module):
    """Something that is done to pooled images [B, 3]."""

    def __init__(self, done: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.done = done

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.done(images),)


def folded(images: Tensor) -> Tensor:
    """Col2Im, an operator of opset 18."""
    columns = images.flatten(2)[:, :, :4].repeat(1, 4, 1)  # [B, 12, 4]: 3 channels of 2 x 2
    return nn.functional.fold(columns, (4, 4), (2, 2), stride=2).mean((2, 3))


def test_an_operator_that_the_opset_lacks_is_named_with_the_lowest_that_has_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UsageError, match=r"opset 16: the operator 'aten::col2im'") as caught:
        export_all_exits(Wrapped(folded).eval(), ["final"], image_modality((3, 8, 8)), opset=16)
    assert caught.value.allowed.startswith("opset 18 or newer")
    assert "--opset 18" in caught.value.next_step
    assert capfd.readouterr() == ("", "")
    assert "Col2Im" in operators(
        export_all_exits(Wrapped(folded).eval(), ["final"], image_modality((3, 8, 8)), opset=18)
    )


def at_opset_16(net: nn.Module) -> onnx.ModelProto:
    example = Inputs({"input": np.zeros((2, 3, 8, 8), np.float32)})
    return torchscript_export(net, image_modality((3, 8, 8)).tensors, example, ["final_outputs"], opset=16)


def at_sixteen(done: Callable[[Tensor], Tensor]) -> onnx.ModelProto:
    return at_opset_16(Wrapped(done).eval())


def test_the_operator_is_named_that_cannot_be_exported_and_not_what_it_reads() -> None:
    """The exporter adds which value is to blame: here the constant that holds the size of the output."""
    with pytest.raises(UsageError, match="output size that are not factor of input size") as caught:
        at_sixteen(lambda images: nn.functional.adaptive_avg_pool2d(images.relu(), 5).flatten(1))
    assert "the operator 'adaptive_avg_pool2d' has no form there" in caught.value.problem
    assert "onnx::" not in caught.value.problem


@pytest.mark.filterwarnings("ignore:.*train=True", "ignore:Converting a tensor")
def test_what_the_older_exporter_asserts_is_our_error() -> None:
    with pytest.raises(UsageError, match=r"opset 16: .*\(AssertionError\)"):
        at_sixteen(lambda images: nn.functional.batch_norm(images, None, None, training=True).mean((2, 3)))


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (
            "Exporting the operator 'aten::rms_norm' to ONNX opset version 16 is not supported",
            "'aten::rms_norm' has no",
        ),
        ("Unsupported: ONNX export of grid_sampler in opset 16. Only 2D. Please try opset version 20.", "in opset 16"),
        (
            "Unsupported: ONNX export of operator pad, mode. Please feel free  [Caused by 'x (... = onnx::Relu(%y))'",
            "'pad' has no form there: mode.",
        ),
        (
            "Unsupported: ONNX export of instance_norm training for unknown batch size.  [Caused by 'onnx::Relu']",
            "'instance_norm' has no form there: training for unknown batch size.",
        ),
        ("ONNX export failed on einsum, which is not implemented for opset 9. Try", "'einsum' has no form there."),
        ("something else\nwith a graph", "something else"),
        ("", "RuntimeError"),
    ],
)
def test_messages_of_the_older_exporter_become_one_line(said: str, named: str) -> None:
    assert named in _failure_text(RuntimeError(said))
    assert "onnx::" not in _failure_text(RuntimeError(said))


class Tracked(nn.Module):
    """InstanceNorm with running statistics, with and without weights; logits [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.Sequential(
            nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
            nn.InstanceNorm2d(3, track_running_stats=True),
            nn.BatchNorm2d(3),
        )
        torch.manual_seed(0)
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.5, 2)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.norms(images).amax((2, 3)),)


@pytest.mark.parametrize("opset", [16, 18])
def test_an_instance_norm_with_running_statistics_is_exported(opset: int) -> None:
    net = Tracked().eval()
    model = export_all_exits(net, ["final"], image_modality((3, 8, 8)), opset=opset)
    images = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    chain = SegmentSessions([serialize(model)], outputs=["final_outputs"], threads=1)
    for batch in (1, 5):
        with torch.no_grad():
            wanted = net(torch.from_numpy(images[:batch]))[0].numpy()
        np.testing.assert_allclose(chain(Inputs({"input": images[:batch]}))[0], wanted, atol=2e-6)
    assert all("forward" not in vars(module) for module in net.modules())


@pytest.mark.parametrize("opset", [16, 18])
def test_a_norm_of_the_batch_is_refused_by_its_name_at_every_opset(opset: int) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    with pytest.raises(UsageError, match=r"'done\.1' \(BatchNorm2d\) has no running statistics") as caught:
        export_all_exits(Wrapped(net), ["final"], image_modality((3, 8, 8)), opset=opset)
    assert "GroupNorm" in caught.value.next_step


@pytest.mark.filterwarnings("ignore:stft")
def test_seventeen_is_named_where_it_is_enough() -> None:
    def spectrum(images: Tensor) -> Tensor:
        rows = torch.stft(images.flatten(1), 16, window=torch.ones(16), return_complex=False, center=False)
        return rows.mean((1, 3))

    with pytest.raises(UsageError, match="opset 16: the operator 'aten::stft'") as caught:
        at_opset_16(Wrapped(spectrum).eval())
    assert caught.value.allowed.startswith("opset 17 or newer")


def test_the_network_stays_in_evaluation_mode() -> None:
    inner = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    at_opset_16(Wrapped(inner))  # the outer is in training
    assert not any(module.training for module in inner.modules())


def test_control_flow_on_values_is_refused_though_tracing_would_not_see_it() -> None:
    net = Wrapped(lambda images: images.mean((2, 3)) if images.sum() > 0 else -images.mean((2, 3)))
    with pytest.raises(UsageError, match="torch cannot export"):
        export_all_exits(net.eval(), ["final"], image_modality((3, 8, 8)), opset=16)


def test_a_batch_that_became_a_number_is_refused() -> None:
    net = Wrapped(lambda images: images.flatten(1)[:, :5] + torch.ones(2, 5)).eval()
    with pytest.raises(ParityError, match="another batch size"):
        at_opset_16(net)


def axes_of(model: onnx.ModelProto) -> dict[str, list[Any]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }


def test_axes_are_numbers_and_multiples_of_the_batch() -> None:
    net = Wrapped(lambda images: images.reshape(-1, 4, 2).relu().reshape(-1, 24 * 8)).eval()
    model = at_opset_16(net)
    axes = list(axes_of(model).values())
    assert ["24*batch", 4, 2] in axes  # 3 * 8 * 8 / 8 for each image
    assert axes_of(model)["final_outputs"] == ["batch", 192]


def test_equal_weights_are_read_where_they_are_stored() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten()).eval()
    net[2].load_state_dict(net[0].state_dict())
    model = at_opset_16(Wrapped(net))
    assert "Identity" not in operators(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    assert len(stored) == 2
    assert all(set(node.input[1:]) <= stored for node in model.graph.node if node.op_type == "Conv")
