from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import pictures

from sdcompress.errors import RecipeError, SetupError, UnknownNameError
from sdcompress.models.backbones.timm import timm
from sdcompress.schema.recipe import Model


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, 40),
        ("vit_tiny_patch16_224", 3, 48),
        ("swin_tiny_patch4_window7_224", 3, 64),
        ("mobilenetv3_small_050.lamb_in1k", 3, 32),
    ],
)
def test_classes_channels_and_size_are_the_data_sets(name, channels, size):
    net = timm(name, outputs=(7,), inputs=pictures(channels, size, size), pretrained=False).eval()
    with torch.no_grad():
        assert net(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_unknown_models_name_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'") as error:
        timm("resnett18", outputs=(7,), inputs=pictures(3, 32, 32), pretrained=False)
    assert len(error.value.allowed.split(", ")) == 8


def test_options_reach_the_model_and_unknown_ones_are_refused():
    net = timm("vit_tiny_patch16_224", outputs=(7,), inputs=pictures(3, 32, 32), pretrained=False, depth=2)
    assert len(net.blocks) == 2
    with pytest.raises(TypeError, match="no_such_option"):
        timm("resnet18", outputs=(7,), inputs=pictures(3, 32, 32), pretrained=False, no_such_option=1)


def make(classes: int, **options):
    return timm("resnet18", outputs=(classes,), inputs=pictures(1, 32, 32), **{"pretrained": False, **options})


def test_weights_of_a_file_are_loaded_or_refused_with_the_way_that_makes_a_new_classifier(tmp_path: Path):
    file, broken = tmp_path / "w.pt", tmp_path / "broken.pt"
    weights = make(7).state_dict()
    torch.save(weights, file)
    broken.write_text("no weights")
    assert torch.equal(make(7, checkpoint_path=str(file)).state_dict()["conv1.weight"], weights["conv1.weight"])
    for path, reason in ((file, "size mismatch for fc.weight"), (broken, ""), (tmp_path / "none.pt", "no such file")):
        with pytest.raises(RecipeError, match=f"cannot load '{path}' into 'timm:resnet18': .*{reason}") as caught:
            make(10, checkpoint_path=str(path))
        assert f"model.weights={path}" in caught.value.next_step
    other = make(10, pretrained=True, pretrained_cfg_overlay={"file": str(file)}).state_dict()  # what it advises
    assert torch.equal(other["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert other["fc.weight"].shape == (10, 512)


def test_what_is_built_to_be_overwritten_reads_no_file():
    model = Model(name="timm:resnet18", weights="runs/a", options={"checkpoint_path": "w.pt", "a": 1})
    assert model.untrained == Model(name="timm:resnet18", options={"a": 1})
    own = Model(name="mine:net", options={"checkpoint_path": "w.pt"})
    assert own.untrained == own


def test_weights_that_cannot_be_downloaded_name_the_file_to_fetch(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(SetupError, match="cannot be downloaded: no network") as caught:
        make(10, pretrained=True)
    assert "fetch https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in caught.value.next_step
    assert "model.weights=weights/resnet18.safetensors" in caught.value.next_step
