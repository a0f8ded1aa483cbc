"""Networks of torchvision, with the record of how their published weights see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import pictures

from sdcompress.errors import RecipeError, SetupError, UnknownNameError
from sdcompress.models.backbones.torchvision import torchvision


def make(name: str = "shufflenet_v2_x0_5", *, classes: int = 7, channels: int = 3, **options: Any) -> torch.nn.Module:
    return torchvision(name, outputs=(classes,), inputs=pictures(channels, 64, 64), **{"pretrained": False, **options})


def test_a_network_has_the_classes_and_the_record_of_its_published_weights() -> None:
    net = make().eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    record = net.pretrained_cfg
    assert (record["mean"], record["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (record["interpolation"], record["crop_pct"], record["num_classes"]) == ("bilinear", 224 / 256, 1000)


def test_what_it_has_not_is_named() -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        make("resnett18")
    with pytest.raises(RecipeError, match="takes images of 3 channels, and these have 1"):
        make(channels=1)


def test_weights_that_cannot_be_downloaded_name_the_file_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(SetupError, match="cannot be downloaded: no network") as caught:
        make(pretrained=True)
    url = r"https://download\.pytorch\.org/models/shufflenetv2_x0\.5-\w+\.pth"
    place = re.escape(str(tmp_path / "hub" / "checkpoints")) + r"/shufflenetv2_x0\.5-\w+\.pth"
    assert re.search(f"fetch {url} on another machine, and put it at {place}", caught.value.next_step)


def test_a_file_in_its_place_is_read_and_another_classifier_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = make(classes=1000).state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: published)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    net = make(pretrained=True)
    assert torch.equal(net.state_dict()["conv1.0.weight"], published["conv1.0.weight"])
    assert net.fc.weight.shape == (7, 1024)


def test_published_weights_that_fit_a_part_of_the_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    published = make("mobilenet_v3_small", classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    with pytest.raises(RecipeError, match=r"'torchvision:mobilenet_v3_small' .* such as features\.0\.0\.weight"):
        make("mobilenet_v3_small", pretrained=True, width_mult=0.5)


@pytest.mark.parametrize(("given", "mean"), [({}, 0.5), ({"transform_input": True}, 0.485)])
def test_a_network_that_torchvision_has_prepare_its_images_again_gets_them_so(
    given: dict[str, Any], mean: float
) -> None:
    # (x - 0.5) / 0.5 is what transform_input makes of (x - 0.485) / 0.229
    net = make("googlenet", aux_logits=False, **given)
    assert net.pretrained_cfg["mean"][0] == mean
