"""Outputs of every pixel: a narrow map, a gate by the whole image, one separable convolution, upsampled logits.

    exit(f) = up(conv(SepConv(g(f) * sigmoid(W mean(f))))),   g: 1 x 1 convolution, batch norm, ReLU

This is the head LR-ASPP of "Searching for MobileNetV3" (Howard et al., ICCV 2019, arXiv 1905.02244, section 6.4)
without its skip connection, which would leave no place to cut behind it, and with one separable 3 x 3 convolution, so
that a pixel sees its neighbours. There the mean is over windows of 49 x 49; here it is over the whole map.
"""

from __future__ import annotations

from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models.heads._base import Head, Pool, conv_norm_relu

__all__ = ["Dense"]


class Dense(Head):
    """A pixel-wise head. Arguments: ``Head``; ``width`` is the number of its channels."""

    dense = True

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        width: int,
        final_shape: tuple[int, ...],  # noqa: ARG002 - every head is called alike
        pool: Pool,  # noqa: ARG002
    ) -> None:
        if len(shape) != 3:
            raise RecipeError(
                f"The head 'dense' looks at maps [C, H, W], and this backbone's parts give tokens {list(shape)}.",
                allowed="a backbone whose parts give maps, such as a convolutional network or Swin",
                next_step="choose another backbone in model.name",
            )
        super().__init__(_Body(shape[0], width), width, outputs)


class _Body(nn.Module):
    """[B, C, h, w] to [B, width, h, w]."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(*conv_norm_relu(inputs, width))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, width, 1), nn.Sigmoid())
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), *conv_norm_relu(width, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.narrow(features) * self.gate(features))
        return mixed
