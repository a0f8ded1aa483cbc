"""list: name all methods, models, heads, data sets and other entries of the registry."""

from __future__ import annotations

import json

from sdcompress import recipes, registry
from sdcompress.errors import UnknownNameError

__all__ = ["ROOMS", "list_entries"]

ROOMS = {
    "methods": "sdcompress.methods",
    "models": "sdcompress.models.backbones",
    "heads": "sdcompress.models.heads",
    "data": "sdcompress.data.sources",
    "tasks": "sdcompress.tasks",
    "modalities": "sdcompress.modalities",
    "policies": "sdcompress.policies",
    "precisions": "sdcompress.quantizing.precisions",
    "backends": "sdcompress.runtime.backends",
    "targets": "sdcompress.packaging",
}


def list_entries(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return the entries of each kind: name -> a line that describes it.

    Args:
        kind: methods, models, heads, data, tasks, modalities, policies, precisions, backends, targets (of packages),
            recipes or keys (of recipes); default: all.

    Raises:
        UnknownNameError: if there is no such kind.
    """
    known = (*ROOMS, "recipes", "keys")
    if kind is not None and kind not in known:
        raise UnknownNameError("kinds of entries", kind, known)
    return {each: _entries(each) for each in (known if kind is None else (kind,))}


def _entries(kind: str) -> dict[str, str]:
    if kind == "recipes":
        return {name: recipes.describe(name) for name in recipes.names()}
    if kind == "keys":
        return {
            key: f"{meaning} [default: {json.dumps(default)}]".lstrip() for key, default, meaning in recipes.all_keys()
        }
    found = {name: registry.describe(ROOMS[kind], name) for name in registry.names(ROOMS[kind])}
    further = {"methods": _presets, "modalities": _parameters, "targets": _settings}.get(kind)
    return {name: f"{text} {further(name)}".rstrip() for name, text in found.items()} if further else found


def _presets(method: str) -> str:
    """Say which parameters a recipe may choose together."""
    found = registry.presets(ROOMS["methods"], method)
    shown = (f"{name}: {', '.join(f'{k}={v:g}' for k, v in numbers.items())}" for name, numbers in found.items())
    return "".join(f"[preset {text}]" for text in shown)


def _settings(target: str) -> str:
    """Say what ``--set`` of 'package' may set."""
    fields = registry.load(ROOMS["targets"], target, extra="all").model_fields
    required = [f"{name} (required)" if field.is_required() else name for name, field in fields.items()]
    return f"[--set: {', '.join(required)}]"


def _parameters(modality: str) -> str:
    """Say what a recipe may set of a modality."""
    kind = registry.load(ROOMS["modalities"], modality, extra="all")
    return (
        f"[modality: {', '.join(kind.setting_names())}; train.augment: "
        f"{', '.join(('mixup (of floats)', *kind.augmentation.model_fields))}]"
    )
