"""Convolution whose gradient is matrix products on a CPU: XLA's function, trained far faster.

XLA runs a plain convolution well on a CPU, forward, and its gradients badly: inside `lax.scan`,
where training happens, they fall to generic loops (jax-ml/jax issue 12868), 20 to 40 times slower
than what follows. A convolution with stride s and no padding is a few matrix products:

1. blocks of s x s pixels become channels, and the kernel's likewise, so that the stride is 1 (space
   to depth); a kernel of 8x8 with stride 4 becomes one of 2x2 over 16 times the channels;
2. each tap (i, j) of the kernel is a matrix [C, F] that multiplies the image shifted by (i, j).

Forward alone is left to XLA, which is faster than these products when there is nothing to save for
a gradient. Gathering all shifted images for one product (im2col) is slower than the sum over taps:
XLA's concatenation on a CPU costs more than the product that it feeds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Convolves: a drop-in for `jax.lax.conv_general_dilated` whose gradient suits CPUs.

    Give it to a layer, `nn.Conv(..., padding="VALID", conv_general_dilated=convolve)`; parameters,
    their names and their initialisation stay `nn.Conv`'s. Under reverse-mode differentiation on a
    CPU it runs as matrix products when padding is "VALID", the kernel is a square whose side is a
    multiple of the stride, and there is no dilation and no grouping. Everything else, and every
    other platform, goes to XLA as it is. Results differ by float rounding only, also between
    the value alone and the value computed with its gradient. The blocked form has no forward-mode
    derivative (`jax.jvp`).

    Args:
        image: float[B, H, W, C].
        kernel: float[K, K, C, F].
        strides: the step along height and width.
        padding: "VALID" for the blocked form; anything that `conv_general_dilated` takes.
        options: its remaining arguments, as `nn.Conv` passes them.

    Returns:
        float[B, (H - K) // stride + 1, (W - K) // stride + 1, F].
    """
    if not _can_block(image, kernel, tuple(strides), padding, options):
        return lax.conv_general_dilated(image, kernel, strides, padding, **options)
    return _convolve(image, kernel, strides[0], options.get("precision"))


def _can_block(
    image: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Any, options: Any
) -> bool:
    plain = {"feature_group_count": 1, "batch_group_count": 1}
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    if image.ndim != 4 or padding != "VALID" or options.get("preferred_element_type") is not None:
        return False
    rows, columns, stride = *kernel.shape[:2], strides[0]
    return (
        strides == (stride, stride)
        and rows == columns
        and rows % stride == 0
        and min(image.shape[1:3]) >= rows
        and all(d is None or tuple(d) == (1, 1) for d in dilations)
        and all(options.get(name, one) == one for name, one in plain.items())
        and _is_nhwc(image, kernel, options.get("dimension_numbers"))
    )


def _is_nhwc(image: jax.Array, kernel: jax.Array, numbers: Any) -> bool:
    expected = lax.conv_dimension_numbers(image.shape, kernel.shape, _NHWC)
    return lax.conv_dimension_numbers(image.shape, kernel.shape, numbers) == expected


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(image: jax.Array, kernel: jax.Array, stride: int, precision: Any) -> jax.Array:
    return _direct(image, kernel, stride, precision)


def _forward(image, kernel, stride, precision):
    # The same shifted images serve the value here and the kernel's gradient below, so products win.
    features = lax.platform_dependent(
        image,
        kernel,
        cpu=lambda x, k: _blocked(x, k, stride, precision),
        default=lambda x, k: _direct(x, k, stride, precision),
    )
    return features, (image, kernel)


def _backward(stride, precision, saved, d_features):
    def pull_back(convolution):
        def gradients(image, kernel, d_features):
            def run(x, k):
                return convolution(x, k, stride, precision)

            return jax.vjp(run, image, kernel)[1](d_features)

        return gradients

    return lax.platform_dependent(
        *saved, d_features, cpu=pull_back(_blocked), default=pull_back(_direct)
    )


_convolve.defvjp(_forward, _backward)


def _direct(image, kernel, stride, precision):
    return lax.conv_general_dilated(
        image, kernel, (stride, stride), "VALID", dimension_numbers=_NHWC, precision=precision
    )


def _blocked(image, kernel, stride, precision):
    blocks = _space_to_depth(_crop_to_windows(image, kernel.shape[0], stride), stride)
    return _sum_over_taps(blocks, _kernel_to_depth(kernel, stride), precision)


def _crop_to_windows(image, size, stride):
    rows, columns = ((n - size) // stride * stride + size for n in image.shape[1:3])
    return image[:, :rows, :columns]


def _space_to_depth(image, s):
    """[B, H, W, C] to [B, H/s, W/s, s*s*C]."""
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // s, s, w // s, s, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // s, w // s, s * s * c)


def _kernel_to_depth(kernel, s):
    """[K, K, C, F] to [K/s, K/s, s*s*C, F]."""
    k, _, c, f = kernel.shape
    blocks = kernel.reshape(k // s, s, k // s, s, c, f).transpose(0, 2, 1, 3, 4, 5)
    return blocks.reshape(k // s, k // s, s * s * c, f)


def _sum_over_taps(x, kernel, precision):
    """Convolves [B, H, W, C] with [K, K, C, F], stride 1: a product for each tap, added."""
    k, _, c, f = kernel.shape
    rows, columns = x.shape[1] - k + 1, x.shape[2] - k + 1
    products = [
        jnp.matmul(
            x[:, i : i + rows, j : j + columns].reshape(-1, c), kernel[i, j], precision=precision
        )
        for i in range(k)
        for j in range(k)
    ]
    return sum(products[1:], products[0]).reshape(x.shape[0], rows, columns, f)
