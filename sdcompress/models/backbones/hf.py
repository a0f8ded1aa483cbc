"""Any text encoder of Hugging Face transformers, from a local folder or the hub's cache; nothing is downloaded.

``hf:FOLDER`` reads ``config.json`` there, and with model.pretrained also the weights; ``hf:organisation/name`` reads
the same from the cache; ``hf:bert`` is a family of transformers, whose sizes stand in model.options.config.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

from torch import Tensor, nn

from sdcompress import registry
from sdcompress.errors import RecipeError, SetupError, UnknownNameError, requires_extra
from sdcompress.models.heads import ROOM as HEADS
from sdcompress.models.heads._base import Pool
from sdcompress.models.inputs import mask_position
from sdcompress.schema import graphs

__all__ = ["hf"]

_CONFIG = "config.json"
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_NATIVE = "native"
_ATTENTION = (None, "eager", "sdpa")  # of torch alone; any other is a package, or a kernel that would be downloaded
_UNRECORDED = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "auto_map")


def hf(
    name: str,
    *,
    outputs: tuple[int, ...],
    inputs: Sequence[graphs.Tensor],
    pretrained: bool,
    config: Mapping[str, Any] | None = None,
    head: str | None = None,
    pool: Pool = "mean",
) -> nn.Module:
    """Return an encoder with a classifier for K classes.

    Args:
        name: a folder with config.json, a name of the hub whose files are in its cache, or a family of transformers.
        outputs: (K,).
        inputs: int64 [batch, sequence] each: ``input_ids``, ``attention_mask``, and others that the encoder takes.
        pretrained: load the weights beside config.json; else they are random.
        config: values in the place of those of config.json. With ``model_type`` it is complete, and no file is read
            for it.
        head: the last exit's, of 'sdcompress list heads'; 'native': the family's own classifier, with its weights. By
            default native where config.json is of a sequence classifier, else tanh_mlp.
        pool: how the head makes one vector of the tokens: their mean without padding, or the class token.

    Raises:
        RecipeError: if transformers knows no such family, the encoder does not take the inputs, or the weights are of
            another network or a pickle of more than tensors.
        SetupError: if the files are not there.
        MissingExtraError: if transformers is not installed.
    """
    with requires_extra("text"):
        import transformers  # noqa: F401 - said here, before a folder is looked for
    folder = None if config and "model_type" in config and not pretrained else _folder(name, pretrained=pretrained)
    complete = _config(name, folder, config or {})
    chosen = head or (_NATIVE if _is_classifier(complete) else "tanh_mlp")
    complete.num_labels = outputs[0]
    network = _network(name, complete, folder if pretrained else None, native=chosen == _NATIVE)
    _check_inputs(name, network, inputs)
    names, mask = [tensor.name for tensor in inputs], mask_position(inputs)
    options = {"config": _recorded(complete), "head": chosen}
    if chosen == _NATIVE:
        return _Native(network, names, options)
    width = complete.hidden_size
    kind = registry.load(HEADS, chosen, extra="train")
    classifier = kind((1, width), outputs[:1], width=width, final_shape=(1, width), pool=pool)
    return _Pooled(network, classifier, names, mask, options)


class _Pooled(nn.Module):
    """An encoder and a head on its last hidden states.

    Args:
        encoder: gives ``last_hidden_state``.
        head: of the room of heads.
        names: of the inputs, in their order.
        mask: position of the padding mask among them.
        rebuild_options: with which the family builds it again without files.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, names: list[str], mask: int | None, rebuild_options: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self._names, self._mask, self.rebuild_options = names, mask, rebuild_options
        self.pretrained_cfg = {"num_classes": 0}  # as timm says it: weights of an encoder have no classifier

    def get_classifier(self) -> nn.Module:
        """Return what published weights may lack, as timm's networks do."""
        return self.head

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits [B, K] of the inputs, each [B, N]."""
        hidden = self.encoder(**dict(zip(self._names, inputs, strict=True))).last_hidden_state
        logits: Tensor = self.head(hidden, None if self._mask is None else inputs[self._mask])[0]
        return logits


class _Native(nn.Module):
    """A sequence classifier of transformers; see ``_Pooled``."""

    def __init__(self, classifier: nn.Module, names: list[str], rebuild_options: dict[str, Any]) -> None:
        super().__init__()
        self.network = classifier
        self._names, self.rebuild_options = names, rebuild_options

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits [B, K] of the inputs, each [B, N]."""
        logits: Tensor = self.network(**dict(zip(self._names, inputs, strict=True))).logits
        return logits


def _folder(name: str, *, pretrained: bool) -> Path | None:
    """Return the folder of the files; None for the name of a family."""
    from huggingface_hub import constants, try_to_load_from_cache
    from transformers import CONFIG_MAPPING

    folder = Path(name).expanduser()
    if (folder / _CONFIG).is_file():
        return folder
    if name in CONFIG_MAPPING:
        if pretrained:
            raise RecipeError(
                f"model.pretrained is set, and 'hf:{name}' names a family without weights.",
                allowed="the folder of a network, or its name on the hub",
                next_step="name the folder in model.name, e.g. hf:models/minilm",
            )
        return None
    if folder.is_dir():
        raise SetupError(
            f"There is no {_CONFIG} in {folder}.",
            allowed=f"a folder with {_CONFIG}, and {_SAFE[0]} for its weights",
            next_step="name the folder that save_pretrained wrote, or that was downloaded from huggingface.co",
        )
    try:
        cached = try_to_load_from_cache(name, _CONFIG)
    except ValueError:  # it cannot be a name of the hub
        cached = None
    if isinstance(cached, str):
        return Path(cached).parent
    files = f"{_CONFIG} {_SAFE[0]}" if pretrained else _CONFIG
    raise SetupError(
        f"'{name}' is neither a folder nor in the cache of the hub, {constants.HF_HUB_CACHE}; nothing is downloaded.",
        allowed=f"a folder, a name whose files are in the cache, or a family of transformers, such as {_near(name)}",
        next_step=f"fetch https://huggingface.co/{name}/resolve/main/{_CONFIG}"
        + (f" and .../{_SAFE[0]}" if pretrained else "")
        + f", put {files} into a folder and write hf:FOLDER; with a network also: hf download {name} {files}",
    )


def _near(name: str) -> str:
    from difflib import get_close_matches

    from transformers import CONFIG_MAPPING

    return ", ".join(get_close_matches(name.rpartition("/")[2], list(CONFIG_MAPPING.keys()), n=3, cutoff=0.0))


def _config(name: str, folder: Path | None, given: Mapping[str, Any]) -> Any:
    """Return transformers' configuration: the file's, with what is given in the place of its values."""
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

    values = {key: value for key, value in given.items() if key != "model_type"}
    family = given.get("model_type", name)
    if folder is None and family not in CONFIG_MAPPING:
        raise UnknownNameError("families of transformers", str(family), CONFIG_MAPPING.keys())
    try:
        config = (
            AutoConfig.for_model(family, **values)
            if folder is None
            else AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **values)
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise _unusable_config(name, folder, error) from error
    if type(config) not in AutoModel._model_mapping or config.is_encoder_decoder:  # noqa: SLF001 - no public name
        raise RecipeError(
            f"'hf:{name}' is of the family '{config.model_type}', which is no encoder of texts.",
            allowed="encoders such as bert, distilbert, roberta, electra, deberta-v2, modernbert, mpnet",
            next_step="name an encoder in model.name",
        )
    if (attention := config._attn_implementation) not in _ATTENTION:  # noqa: SLF001 - likewise
        raise RecipeError(
            f"The configuration of 'hf:{name}' asks for the attention '{attention}', which is code of others.",
            allowed="eager or sdpa, which torch has",
            next_step=f"remove attn_implementation from {folder / _CONFIG if folder else 'model.options.config'}",
        )
    return config


def _unusable_config(name: str, folder: Path | None, error: Exception) -> RecipeError:
    from importlib.metadata import version

    where = "model.options.config" if folder is None else str(folder / _CONFIG)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return RecipeError(
        f"transformers {version('transformers')} cannot read {where} of 'hf:{name}': {reason}",
        allowed="the configuration of a family that this version knows; code beside it is never run",
        next_step="check model_type in it, or pip install --upgrade transformers",
    )


def _is_classifier(config: Any) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ())


def _network(name: str, config: Any, weights: Path | None, *, native: bool) -> nn.Module:
    """Return the encoder, or with ``native`` the classifier; random weights where there is no folder of them."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification if native else AutoModel
    try:
        network = auto.from_config(config) if weights is None else _pretrained(name, auto, config, weights)
    except (ValueError, AssertionError, AttributeError, TypeError, ImportError) as error:
        raise _unusable_config(name, weights, error) from error
    if not native and isinstance(getattr(network, "pooler", None), nn.Module):
        network.pooler = nn.Identity()  # families differ in whether it may be None; the head pools
    return cast("nn.Module", network)


def _pretrained(name: str, auto: Any, config: Any, folder: Path) -> nn.Module:
    import torch
    from safetensors import SafetensorError

    if not any((folder / file).is_file() for file in (*_SAFE, *_PICKLED)):
        raise SetupError(
            f"There are no weights in {folder}.",
            allowed=f"{', '.join((*_SAFE[:1], *_PICKLED[:1]))}, or their parts with an index",
            next_step=f"put {_SAFE[0]} of the same network beside {_CONFIG}, or remove model.pretrained",
        )
    try:
        with _quiet():
            network, report = auto.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                weights_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, UnpicklingError, SafetensorError, EOFError) as error:
        raise _unusable_weights(name, folder, error) from error
    _check_loaded(name, folder, network, report)
    return cast("nn.Module", network)


def _unusable_weights(name: str, folder: Path, error: Exception) -> RecipeError:
    if isinstance(error, UnpicklingError):
        reason = "they hold Python objects beside tensors, and to read those would run code. They were not read"
        next_step = (
            f"convert them to {_SAFE[0]} where you trust the file: "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(OTHER)"
        )
    else:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        next_step = "fetch the file again, and compare its size with the published one"
    return RecipeError(
        f"The weights of 'hf:{name}' in {folder} cannot be loaded: {reason}.",
        allowed="safetensors, or a pickle of nothing but tensors",
        next_step=next_step,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its table of missing tensors off stderr; ``_check_loaded`` reports them."""
    from transformers import utils

    logging: Any = utils.logging  # its functions have no types
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what torch cannot read is an error
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_loaded(name: str, folder: Path, network: Any, report: Mapping[str, Any]) -> None:
    """Refuse weights that leave a part of the encoder random; warn of a classifier or pooler that is new."""
    base = network.base_model
    inner = {parameter for part, parameter in base.named_parameters() if not part.startswith("pooler.")}
    anew = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    random = [(part, parameter in inner) for part, parameter in network.named_parameters() if part in anew]
    lost = [part for part, is_inner in random if is_inner]
    if lost:
        raise RecipeError(
            f"The weights in {folder} are of another network than its {_CONFIG}: {len(lost)} tensors of 'hf:{name}' "
            f"are not among them in their size, such as {', '.join(lost[:3])}.",
            allowed=f"weights of the network that {_CONFIG} (with model.options.config) describes",
            next_step="put both files of the same network there, or remove values from model.options.config",
        )
    outer = [part for part, _ in random if network is not base]  # the pooler of an encoder alone is never used
    if outer:
        warnings.warn(
            f"The weights in {folder} lack {', '.join(outer)} in this size: these start from random values.",
            stacklevel=2,
        )


def _check_inputs(name: str, network: nn.Module, inputs: Sequence[graphs.Tensor]) -> None:
    taken = signature(network.forward).parameters
    names = [tensor.name for tensor in inputs]
    unknown = [each for each in names if each not in taken]
    if unknown or "input_ids" not in names or "input_ids" not in taken:
        tensors = [each for each in ("input_ids", "attention_mask", "token_type_ids") if each in taken]
        raise RecipeError(
            f"'hf:{name}' cannot be called with the data's inputs {', '.join(names)}: "
            f"{f'it takes no {unknown[0]}' if unknown else 'there are no input_ids'}.",
            allowed=", ".join(tensors) or "the inputs of a text encoder",
            next_step="choose data of texts; set modality.token_types only where the encoder takes token_type_ids"
            if tensors
            else "name an encoder of texts in model.name",
        )


def _recorded(config: Any) -> dict[str, Any]:
    values = {key: value for key, value in config.to_diff_dict().items() if key not in _UNRECORDED}
    return {**values, "model_type": config.model_type}
