"""Make dummy inputs of a network, and find the size of an image and the padding mask among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdcompress.errors import RecipeError
from sdcompress.schema import graphs

__all__ = ["VARYING_AXIS_SIZE", "example_inputs", "image_shape", "map_size", "mask_position"]

VARYING_AXIS_SIZE = 16  # of an axis that varies, besides the batch, in dummy inputs and where MACs are counted
_MASK = "attention_mask"  # as Hugging Face names it


def example_inputs(
    tensors: Sequence[graphs.Tensor], batch: int = 2, *, device: torch.device | None = None
) -> tuple[Tensor, ...]:
    """Inputs of ``batch`` samples, in the order of the tensors: floats are 0, integers 1 (a mask that hides nothing).

    Args:
        tensors: of the modality; their first axis is the batch.
        batch: B.
        device: where; None: the CPU.
    """
    examples = []
    for tensor in tensors:
        shape = [size if isinstance(size, int) else VARYING_AXIS_SIZE for size in tensor.shape[1:]]
        dtype: torch.dtype = getattr(torch, tensor.dtype)
        examples.append(torch.full((batch, *shape), 0 if dtype.is_floating_point else 1, dtype=dtype, device=device))
    return tuple(examples)


def image_shape(tensors: Sequence[graphs.Tensor], backbone: str) -> tuple[int, int, int]:
    """Return (C, H, W) of the only input, float [B, C, H, W].

    Args:
        tensors: of the modality.
        backbone: its name in the recipe, for the error.

    Raises:
        RecipeError: if there are other inputs.
    """
    if (shape := map_size(tensors)) is None:
        given = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in tensors)
        raise RecipeError(
            f"The backbone '{backbone}' takes images, and the data's inputs are {given}.",
            allowed="a backbone for these inputs, such as a function of your own",
            next_step="choose another backbone in model.name, see docs/adding/model.md",
        )
    return shape


def map_size(tensors: Sequence[graphs.Tensor]) -> tuple[int, int, int] | None:
    """Return (C, H, W) where the only input is float [B, C, H, W]; else None."""
    if len(tensors) != 1 or not tensors[0].dtype.startswith("float"):
        return None
    sizes = [size for size in tensors[0].shape[1:] if isinstance(size, int)]
    if len(tensors[0].shape) != 4 or len(sizes) != 3:
        return None
    channels, height, width = sizes
    return channels, height, width


def mask_position(tensors: Sequence[graphs.Tensor]) -> int | None:
    """The position of the padding mask ``attention_mask`` [B, N], 0 at tokens that are padding; None: there is none."""
    return next((at for at, tensor in enumerate(tensors) if tensor.name == _MASK and len(tensor.shape) == 2), None)
