"""Encoders of transformers: from folders and configurations, with exits after any layer, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import FAMILIES, INPUTS, REFUSED, WIDTH, encoder, largest_change_by_padding
from networks import pictures
from safetensors.torch import save_file
from text_tokens import Tokens

from sdcompress.checkpoint import Checkpoint
from sdcompress.errors import RecipeError, SdcompressError, SetupError, UnknownNameError
from sdcompress.models.build import build
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.weights.load import load_weights
from sdcompress.schema.graphs import FileEntry, Tensor
from sdcompress.schema.recipe import Exits, Model, Recipe
from sdcompress.schema.training import TrainingState
from sdcompress.tasks.classification import Classification

transformers = pytest.importorskip("transformers")

# families whose outputs depend on padding, which the parity gate refuses
PADDING_MATTERS = {"mobilebert", "convbert"}
EXITS = Exits(modules=("encoder.encoder.layer.0",), head="linear")
TOKENS = torch.tensor([[5, 9, 7, 0], [8, 5, 0, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def bert(**config: Any) -> Any:
    sizes = {"vocab_size": 60, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.BertConfig(**{**sizes, "intermediate_size": 32, "max_position_embeddings": 80, **config})


def saved(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    return folder


def built(name: object, exits: Exits = EXITS, *, pretrained: bool = False, **options: Any) -> MultiExit:
    torch.manual_seed(1)
    model = Model(name=f"hf:{name}", pretrained=pretrained, options=options)
    return build(model, exits, outputs=(2,), inputs=INPUTS).eval()


def refused(error: type[SdcompressError], name: object, **arguments: Any) -> SdcompressError:
    with pytest.raises(error) as caught:
        built(name, **arguments)
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
def test_a_family_has_exits_after_its_layers_that_do_not_see_padding(family: str) -> None:
    net = encoder(family)
    assert len(net.taps) == 2
    assert (largest_change_by_padding(net) > 1e-4) == (family in PADDING_MATTERS)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_have_them_says_why(family: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED[family][0]):
        encoder(family)


def test_pretrained_weights_are_those_of_the_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = transformers.BertModel(bert()).eval()
    net = built(saved(original, tmp_path), pretrained=True)
    with torch.no_grad():
        hidden = original(*TOKENS).last_hidden_state
        logits = net(*TOKENS).logits
        mean = torch.stack([hidden[0, :3].mean(0), hidden[1, :2].mean(0)])
        assert torch.allclose(net.backbone.head.body[1:](mean), net.backbone.head.body(hidden, TOKENS[1]))
        assert torch.allclose(logits[1], net.backbone.head.classifier(net.backbone.head.body[1:](mean)), atol=1e-6)
        first = original.encoder.layer[0](original.embeddings(TOKENS[0][1:, :2]))
        assert torch.allclose(logits[0][1:], net.heads[0](first)[0], atol=1e-5)
    assert not torch.equal(built(tmp_path)(*TOKENS).logits[1], logits[1])


def test_a_fine_tuned_classifier_is_the_last_exit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = transformers.BertForSequenceClassification(bert()).eval()
    exits = Exits(modules=("network.bert.encoder.layer.0",), head="linear")
    net = built(saved(original, tmp_path), exits, pretrained=True)
    with torch.no_grad():
        assert torch.allclose(net(*TOKENS).logits[1], original(*TOKENS).logits, atol=1e-6)
    assert net.output_layer == "network.classifier"
    assert built(tmp_path, EXITS, pretrained=True, head="tanh_mlp").output_layer == "head.classifier"


def test_a_classifier_of_other_classes_starts_from_random_values_and_a_warning_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(transformers.BertForSequenceClassification(bert(num_labels=5)), tmp_path)
    exits = Exits(modules=("network.bert.encoder.layer.0",), head="linear")
    capfd.readouterr()  # the progress bar of saving
    with pytest.warns(UserWarning, match=r"lack classifier.weight, classifier.bias in this size"):
        net = built(tmp_path, exits, pretrained=True)
    assert net(*TOKENS).logits[1].shape == (2, 2)
    assert capfd.readouterr() == ("", "")  # of transformers itself
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_half_precision_weights_are_trained_in_float32(tmp_path: Path) -> None:
    saved(transformers.BertModel(bert()).half(), tmp_path)
    assert {parameter.dtype for parameter in built(tmp_path, pretrained=True).parameters()} == {torch.float32}


def test_the_options_of_a_built_network_build_it_again_without_the_folder(tmp_path: Path) -> None:
    folder = saved(transformers.BertModel(bert()), tmp_path / "here")
    net = built(folder, config={"num_hidden_layers": 3}, pool="token")
    options = json.loads(json.dumps(net.backbone.rebuild_options))
    (folder / "config.json").unlink()
    again = built(folder, pool="token", **options)
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(again(*TOKENS).logits[1], net(*TOKENS).logits[1])


def test_segment_ids_are_passed_by_name() -> None:
    inputs = (*INPUTS, Tensor(name="token_type_ids", dtype="int64", shape=("batch", "sequence")))
    model = Model(name="hf:bert", options={"config": bert().to_diff_dict()})
    net = build(model, EXITS, outputs=(2,), inputs=inputs).eval()
    with torch.no_grad():
        first, second = (net(*TOKENS, torch.full((2, 4), value)).logits[1] for value in (0, 1))
    assert not torch.allclose(first, second)


def test_names_that_lead_nowhere_say_what_to_fetch(tmp_path: Path) -> None:
    found = refused(SetupError, "someone/encoder-base", pretrained=True)
    assert "nothing is downloaded" in found.problem
    for part in ("huggingface.co/someone/encoder-base", "config.json", "model.safetensors", "hf:FOLDER"):
        assert part in found.next_step
    assert "config.json" in refused(SetupError, tmp_path).problem
    assert "family without weights" in refused(RecipeError, "bert", pretrained=True).problem
    assert "no weights" in refused(SetupError, saved_config(tmp_path), pretrained=True).problem


def test_configurations_that_are_no_encoder_of_texts_are_refused(tmp_path: Path) -> None:
    unknown = saved_config(tmp_path / "unknown", model_type="my_own_encoder", auto_map={"AutoModel": "code.Mine"})
    assert "my_own_encoder" in refused(RecipeError, unknown).problem
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "cannot read" in refused(RecipeError, tmp_path / "broken").problem
    assert "no encoder of texts" in refused(RecipeError, "t5").problem
    assert "takes no input_ids" in refused(RecipeError, "vit").problem
    refused(UnknownNameError, "x", config={"model_type": "brt"})
    fetching = saved_config(tmp_path / "fetching", attn_implementation="kernels-community/flash-attn2")
    assert "which is code of others" in refused(RecipeError, fetching).problem
    assert "cannot read" in refused(RecipeError, "bert", config={"hidden_size": 25, "num_attention_heads": 2}).problem


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = saved(transformers.BertModel(bert()), tmp_path)
    saved_config(folder, hidden_size=2 * WIDTH)
    assert "another network" in refused(RecipeError, folder, pretrained=True).problem
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "fetch the file again" in refused(RecipeError, folder, pretrained=True).next_step


class Code:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("ran"), "code"))


def test_a_pickle_of_tensors_is_loaded_and_one_with_code_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    original = transformers.BertModel(bert())
    folder = saved(original, tmp_path / "weights")
    (folder / "model.safetensors").unlink()
    torch.save(original.state_dict(), folder / "pytorch_model.bin")
    net = built(folder, pretrained=True)
    key = "embeddings.word_embeddings.weight"
    assert torch.equal(net.backbone.encoder.state_dict()[key], original.state_dict()[key])
    torch.save({"weights": Code()}, folder / "pytorch_model.bin")
    assert "would run code" in refused(RecipeError, folder, pretrained=True).problem
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Code()))
    refused(RecipeError, folder, pretrained=True)
    assert not Path("ran").exists()


def test_pictures_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"it takes no input\."):
        build(Model(name="hf:bert"), EXITS, outputs=(2,), inputs=pictures(3, 8, 8))


def saved_config(folder: Path, **values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {**bert().to_dict(), "model_type": "bert", **values}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_weights_that_a_recipe_names_may_lack_the_classifier(tmp_path: Path) -> None:
    original = transformers.BertModel(bert())
    folder = saved(original, tmp_path)
    net = built(folder)
    loaded = load_weights(net, str(folder), "name", "hf:folder")
    key = "encoder.layer.1.output.dense.weight"
    assert torch.equal(net.backbone.encoder.state_dict()[key], original.state_dict()[key])
    assert {name.split(".")[-3] for name in loaded.anew if name.startswith("backbone.")} <= {"body", "head"}
    assert all(name.startswith("pooler.") for name in loaded.left)


def test_a_checkpoint_is_opened_where_the_folder_is_not(tmp_path: Path) -> None:
    net = built(saved(transformers.BertModel(bert()), tmp_path / "here"), pretrained=True)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    state = TrainingState.model_construct(
        recipe=Recipe(model=Model(name="hf:gone", pretrained=True), exits=EXITS),
        backbone_options=net.backbone.rebuild_options,
        weights=FileEntry(file="weights.safetensors", sha256="0" * 64, bytes=1),
        versions={},
    )
    checkpoint = Checkpoint(tmp_path, state)
    vars(checkpoint).update(task=Classification(("a", "b")), modality=Tokens())  # instead of those of the state
    with torch.no_grad():
        assert torch.equal(checkpoint.network()(*TOKENS).logits[1], net(*TOKENS).logits[1])
