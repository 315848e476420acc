"""Convolution as matrix products, for CPUs: the same function as XLA's, several times as fast.

On a CPU, XLA hands matrix products to a fast library on all cores, but convolutions only in part,
and inside `lax.scan`, where training happens, their gradients not at all (jax-ml/jax issue 12868:
a loop of ours ran 20 to 40 times slower for it). A convolution with stride s and no padding is a
few products:

1. blocks of s x s pixels become channels, and the kernel's likewise, so that the stride is 1 (space
   to depth); a kernel of 8x8 with stride 4 becomes one of 2x2 over 16 times the channels;
2. each tap (i, j) of the kernel is a matrix [C, F] that multiplies the image shifted by (i, j).

Gathering the shifted images first (im2col) is slower than either way to do step 2 below, because
XLA's concatenation on a CPU costs more than the product that it feeds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")

# With at most 2x2 taps, all of them at every position cost little more than those that are needed.
_FEW_TAPS = 2


def convolve(
    image: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Convolves: a drop-in for `jax.lax.conv_general_dilated`, made for CPUs.

    Give it to a layer, `nn.Conv(..., padding="VALID", conv_general_dilated=convolve)`; parameters,
    their names and their initialisation stay `nn.Conv`'s. On a CPU it runs as matrix products when
    padding is "VALID", the kernel is a square whose side is a multiple of the stride, and there is
    no dilation and no grouping. Everything else, and every other platform, goes to XLA as it is.
    Results differ by float rounding only. The blocked form has no forward-mode derivative.

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
    def direct(image, kernel):
        return _direct(image, kernel, stride, precision)

    def blocked(image, kernel):
        return _blocked(_sum_of_taps_forward, image, kernel, stride, precision)

    return lax.platform_dependent(image, kernel, cpu=blocked, default=direct)


def _forward(image, kernel, stride, precision):
    return _convolve(image, kernel, stride, precision), (image, kernel)


def _backward(stride, precision, saved, d_features):
    def direct(image, kernel, d_features):
        return jax.vjp(lambda x, k: _direct(x, k, stride, precision), image, kernel)[1](d_features)

    # The derivative of shift-then-multiply is the fast one, whichever form ran forward: its
    # products contract the wanted positions only, and nothing is scattered over channels.
    def blocked(image, kernel, d_features):
        def products(x, k):
            return _blocked(_shift_then_multiply, x, k, stride, precision)

        return jax.vjp(products, image, kernel)[1](d_features)

    return lax.platform_dependent(*saved, d_features, cpu=blocked, default=direct)


_convolve.defvjp(_forward, _backward)


def _direct(image, kernel, stride, precision):
    return lax.conv_general_dilated(
        image, kernel, (stride, stride), "VALID", dimension_numbers=_NHWC, precision=precision
    )


def _blocked(sum_of_taps, image, kernel, stride, precision):
    blocks = _space_to_depth(_crop_to_windows(image, kernel.shape[0], stride), stride)
    return sum_of_taps(blocks, _kernel_to_depth(kernel, stride), precision)


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


def _sum_of_taps_forward(x, kernel, precision):
    form = _multiply_then_shift if kernel.shape[0] <= _FEW_TAPS else _shift_then_multiply
    return form(x, kernel, precision)


def _multiply_then_shift(x, kernel, precision):
    """One product for all taps at all positions, then their shifted results added."""
    k, _, c, f = kernel.shape
    every_tap = kernel.transpose(2, 0, 1, 3).reshape(c, k * k * f)
    products = jnp.matmul(x.reshape(-1, c), every_tap, precision=precision)
    products = products.reshape(*x.shape[:-1], k * k * f)
    shifted = [
        _shift(products, i, j, k)[..., (i * k + j) * f : (i * k + j + 1) * f] for i, j in _taps(k)
    ]
    return sum(shifted[1:], shifted[0])


def _shift_then_multiply(x, kernel, precision):
    """A product for each tap with the positions that it needs, added."""
    k, _, c, f = kernel.shape
    shifted = [(_shift(x, i, j, k), kernel[i, j]) for i, j in _taps(k)]
    products = [jnp.matmul(s.reshape(-1, c), tap, precision=precision) for s, tap in shifted]
    return sum(products[1:], products[0]).reshape(*shifted[0][0].shape[:-1], f)


def _taps(k):
    return [(i, j) for i in range(k) for j in range(k)]


def _shift(x, i, j, k):
    rows, columns = x.shape[1] - k + 1, x.shape[2] - k + 1
    return x[:, i : i + rows, j : j + columns]
