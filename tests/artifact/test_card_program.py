"""The card's own program gives the engine's answers on images that nobody has seen, of odd sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdcompress.artifact.card_program import example
from sdcompress.artifact.read import open_artifact
from sdcompress.modalities._image_preprocess import geometry, normalise
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image as Modality
from sdcompress.runtime.open import open_engine

SIZES = ((1, 1), (7, 3), (16, 19), (23, 55), (131, 64), (90, 91))  # height, width


def photos(seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures: what is cut out and how it is resized shows in the pixels."""
    generator = np.random.default_rng(seed)
    photos_ = []
    for height, width in SIZES:
        coarse = Image.fromarray(generator.integers(0, 256, (5, 4, 3), np.uint8))
        photos_.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return photos_


def run(code: str, monkeypatch: pytest.MonkeyPatch, *paths: Path) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", ["classify.py", *map(str, paths)])
    names: dict[str, Any] = {}
    exec(compile(code, "the card", "exec"), names)
    return names


@pytest.mark.parametrize("resize", [None, 55, (48, 60)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_rule_of_the_card_is_ours(
    tiny_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    resize: Any,
    interpolation: Any,
    channels: Any,
) -> None:
    folder = tiny_artifact("single")
    manifest = open_artifact(folder).manifest
    monkeypatch.chdir(folder)
    deep = np.random.default_rng(0).integers(0, 5000, (77, 63), np.uint16)
    images = [*photos(), photos()[4].quantize(7), photos()[4].convert("LA"), Image.fromarray(deep)]
    for crop in (None, (41, 48)):
        spec = Preprocess(
            channels=channels, resize=resize, crop=crop, interpolation=interpolation, white_level=4095,
            mean=(0.485, 0.456, 0.406)[:channels], std=(0.229, 0.224, 0.225)[:channels],
        )  # fmt: skip
        code = example(manifest.model_copy(update={"modality": Modality.of(spec, (1, 1)).record}))
        by_card = run(code, monkeypatch)["network_input"]
        for image in images:
            if resize or not crop or min(image.size) >= 48:
                np.testing.assert_array_equal(by_card(image), normalise(geometry(image, spec)[None], spec))


@pytest.mark.parametrize(
    ("kind", "thresholds"),
    [
        ("max_prob", (0.8, 0.7)),
        ("margin", (0.5, 0.4)),
        ("entropy", (0.6, 0.5)),
        ("fixed", (2.0, 0.5)),
        ("fixed", (1.00000001, 0.5)),  # it rounds to 1, which that score is
    ],
)
def test_the_cascade_of_the_card_exits_as_the_engine_does(
    tiny_artifact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    thresholds: tuple[float, ...],
) -> None:
    folder = tiny_artifact(policy=thresholds, temperatures=(0.7, 1.3, 1.0), kind=kind)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1:]
    assert "sdcompress" not in code
    monkeypatch.chdir(folder)
    images = [image for seed in range(8) for image in photos(seed)]
    paths = []
    for number, image in enumerate(images):
        paths.append(folder.parent / f"{number}.png")
        image.save(paths[-1])
    program = run(code, monkeypatch, *paths)
    engine = open_engine(folder, threads=1)
    answers = engine(engine.preprocess(images))
    expected = list(zip(answers.outputs.argmax(1).tolist(), answers.exit_index.tolist(), strict=True))
    assert [program["predict"](program["inputs_of"](path)) for path in paths] == expected
    assert capsys.readouterr().out.splitlines() == [f"{path} {one}" for path, one in zip(paths, expected, strict=True)]
    assert len({left for _, left in expected}) == (1 if kind == "fixed" else 3)


def test_a_cascade_without_a_policy_and_one_whose_policy_needs_more_run_to_the_end(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, expected in (
        (tiny_artifact(name="plain"), "no policy"),
        (
            tiny_artifact(policy=(0.5, 0.5), name="patient", kind="patience"),
            "the policy 'patience', which needs more",
        ),
    ):
        manifest = open_artifact(folder).manifest
        code = example(manifest)
        assert expected in code
        monkeypatch.chdir(folder)
        program = run(code, monkeypatch)
        engine = open_engine(folder, threads=1)
        reference = engine.forced(engine.preprocess(photos()), -1).decision
        inputs = [{"input": program["network_input"](image)} for image in photos()]
        assert [program["predict"](one) for one in inputs] == [(answer, 2) for answer in reference.tolist()]


def test_names_out_of_a_manifest_are_no_code(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    hostile = "\"]; raise SystemExit #\n'] = 1\nraise SystemExit"
    exits = tuple(exit_.model_copy(update={"outputs": hostile}) for exit_ in manifest.exits)
    policy = open_artifact(tiny_artifact(policy=(0.5, 0.5), name="policy")).manifest.policy
    assert policy is not None
    unknown = policy.model_copy(update={"name": f'""" + {hostile}'})
    for segments in (manifest.segments, manifest.segments[:1]):
        code = example(manifest.model_copy(update={"segments": segments, "exits": exits, "policy": unknown}))
        assert not any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(code)))


def test_the_card_names_the_rule_in_words(tiny_artifact: Callable[..., Path]) -> None:
    text = (tiny_artifact() / "README.md").read_text(encoding="utf-8")
    assert "`inputs_of` is the whole preparation" in text
