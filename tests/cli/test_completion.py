"""What a shell offers: names of every registry, read without importing what they name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from networks import pictures

from sdcompress import methods, recipes, registry
from sdcompress.models import backbones
from sdcompress.models.backbones import cifar
from sdcompress.models.backbones._cifar_networks import RESNETS, VGGS


@pytest.fixture
def offered(cli, monkeypatch):
    """``offered("train --method e")``: the words that bash is given for the last one."""

    def complete(line: str) -> list[str]:
        words = ["sdcompress", *line.split(" ")]
        monkeypatch.setenv("_SDCOMPRESS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        done = cli()
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return complete


def test_methods_and_what_may_follow_a_plus(offered) -> None:
    assert offered("train --method ") == registry.names(methods.ROOM)
    assert offered("train --method ee") == ["eed"]
    assert offered("train --method eed+ps") == ["eed+ps_kd"]


def test_models_by_family_and_then_by_name(offered) -> None:
    assert offered("train --model ") == [f"{family}:" for family in registry.names(backbones.ROOM)]
    assert offered("train --model cifar:resnet1") == ["cifar:resnet18"]
    assert offered("train --model my_nets:m") == []


@pytest.mark.parametrize("verb", ["train -c", "run"])
def test_recipes(offered, verb: str) -> None:
    assert offered(f"{verb} ") == recipes.names()
    assert offered(f"{verb} my_own") == []  # bash offers files then


@pytest.mark.parametrize(
    ("line", "room"),
    [
        ("train --data ", "sdcompress.data.sources"),
        ("calibrate artifact --policy ", "sdcompress.policies"),
        ("quantize artifact --precision ", "sdcompress.quantizing.precisions"),
        ("bench artifact --backend ", "sdcompress.runtime.backends"),
        ("calibrate artifact --backend ", "sdcompress.runtime.backends"),
        ("evaluate artifact --backend ", "sdcompress.runtime.backends"),
    ],
)
def test_every_option_that_takes_a_name_of_a_registry(offered, line: str, room: str) -> None:
    assert offered(line) == registry.names(room)


def test_kinds_of_things_to_list_and_verbs(offered) -> None:
    assert "methods" in offered("list ")
    assert offered("calib") == ["calibrate"]


def test_the_networks_that_are_offered_are_there() -> None:
    assert {*RESNETS, *VGGS} == {name for name in cifar.NAMES if not name.startswith("wrn_")}
    for name in cifar.NAMES:
        assert cifar.cifar(name, outputs=(3,), inputs=pictures(1, 32, 32), pretrained=False) is not None


def test_nothing_heavy_is_loaded() -> None:
    program = """
import contextlib, io, json, os, sys
from sdcompress.cli import main
os.environ.update(_SDCOMPRESS_COMPLETE="complete_bash", COMP_CWORD="3")
offered = []
for line in ("train --method e", "train --model cifar:", "train -c d", "train --data d", "bench --backend o"):
    os.environ["COMP_WORDS"] = "sdcompress " + line
    sys.argv, out = ["sdcompress"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    offered.append(out.getvalue().split())
print(json.dumps({"offered": offered, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert all(found["offered"])
    heavy = {"torch", "torchvision", "timm", "lightning_fabric", "onnx", "onnxruntime", "sklearn", "matplotlib"}
    assert not heavy & set(found["loaded"])
