"""Compute convolutions on a CPU as matrix products, where XLA's own convolutions are slower.

On a CPU, XLA (jaxlib 0.10.2) runs a convolution by YNNPACK, which is slow for the few channels of
an image and for strides, and its gradients inside `lax.scan`, as in training, by generic loops
(jax-ml/jax issue 12868). XLA runs matrix products well, and a convolution with stride s and no
padding is a few of them:

1. blocks of s x s pixels become channels, of the image and of the kernel, so that the stride is 1
   (space to depth); a kernel of 8x8 with stride 4 becomes one of 2x2 over 16 times the channels;
2. each position (i, j) of the kernel, a tap, is a matrix [C, F]. Either all taps side by side
   multiply every pixel once, and the products are shifted and added; or the pixels under all taps
   are gathered (im2col) and multiplied by the whole kernel at once. Which is faster depends on how
   much there is to gather, and how many products fall outside the image.

The speed is limited by memory unless the arrays fit the processor's cache: see `encoders.batches`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")

MANY = 16
"""Channels from which on XLA's own convolution is used for the value, with a kernel of 3x3 or more
and stride 1: `impala` is 1.79 to 1.88 times as fast, `nature_cnn` about as fast (docs/profile.md).
"""


def convolve(
    image: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Convolve, as a drop-in for `jax.lax.conv_general_dilated` that is fast on CPUs.

    Use it in a layer as `nn.Conv(..., padding="VALID", conv_general_dilated=convolve)`; parameters,
    their names and their initialisation stay those of `nn.Conv`. On a CPU it runs as matrix
    products (blocked) if padding is "VALID", the kernel is a square whose side is a multiple of the
    stride, and there is no dilation and no grouping; but see `MANY`. All other cases and platforms
    use XLA's convolution. Results differ by float rounding only. The blocked form has no
    forward-mode derivative (`jax.jvp`).

    Args:
        image: float[B, H, W, C]; or uint8, which is cast to the kernel's dtype without scaling.
        kernel: float[K, K, C, F].
        strides: strides along height and width.
        padding: as `conv_general_dilated` takes it; the blocked form needs "VALID".
        options: further arguments of `conv_general_dilated`, as `nn.Conv` passes them.

    Returns:
        float[B, (H - K) // stride + 1, (W - K) // stride + 1, F].
    """
    if not _can_block(image, kernel, tuple(strides), padding, options):
        image = image.astype(kernel.dtype)
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
    return lax.platform_dependent(
        image,
        kernel,
        cpu=partial(_value, stride=stride, precision=precision),
        default=partial(_direct, stride=stride, precision=precision),
    )


def _forward(image, kernel, stride, precision):
    return _convolve(image, kernel, stride, precision), (image, kernel)


def _backward(stride, precision, saved, d_features):
    def direct(argument):
        def gradient(image, kernel, d_features):
            run = partial(_direct, stride=stride, precision=precision)
            return jax.vjp(run, image, kernel)[1](d_features)[argument]

        return gradient

    def gradient(argument, in_products):
        return lax.platform_dependent(
            *saved,
            d_features,
            cpu=partial(in_products, stride=stride, precision=precision),
            default=direct(argument),
        )

    # One by one, so that XLA leaves out the one that nobody asks for.
    of_bytes = saved[0].dtype == jnp.uint8
    return None if of_bytes else gradient(0, _image_gradient), gradient(1, _kernel_gradient)


_convolve.defvjp(_forward, _backward)


def _direct(image, kernel, stride, precision):
    return lax.conv_general_dilated(
        image.astype(kernel.dtype),
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=_NHWC,
        precision=precision,
    )


def _value(image, kernel, stride, precision):
    if stride == 1 and len(kernel) > 2 and image.shape[-1] >= MANY:
        return _direct_but_for_many_kernels(image, kernel, precision)
    return _products(image, kernel, stride, precision)


def _direct_but_for_many_kernels(image, kernel, precision):
    """Convolve with stride 1 by XLA; by products under a `jax.vmap` over kernels, as of several
    agents, which XLA would run as a grouped convolution (`impala`: half as fast or slower)."""
    direct = jax.custom_batching.custom_vmap(partial(_direct, stride=1, precision=precision))

    @direct.def_vmap
    def of_batch(size, is_batched, image, kernel):
        if is_batched[1]:
            axes = (0 if is_batched[0] else None, 0)
            products = partial(_products, stride=1, precision=precision)
            return jax.vmap(products, axes)(image, kernel), True
        features = direct(image.reshape(-1, *image.shape[2:]), kernel)
        return features.reshape(size, -1, *features.shape[1:]), True

    return direct(image, kernel)


def _products(image, kernel, stride, precision):
    x, kernel = _to_depth(image, kernel, stride)
    # Products that reach beyond the edges are many where the kernel is large and the image small.
    multiply = _multiply_and_shift if len(kernel) <= 2 else _gather_and_multiply
    return multiply(x, kernel, precision)


def _multiply_and_shift(x, kernel, precision):
    """Convolve [B, H, W, C] with [K, K, C, F], stride 1: each pixel times all taps, then shifts."""
    side, _, c, f = kernel.shape
    rows, columns = x.shape[1] - side + 1, x.shape[2] - side + 1
    matrix = kernel.transpose(2, 0, 1, 3).reshape(c, side * side * f)
    products = jnp.matmul(x.reshape(-1, c), matrix, precision=precision)
    products = products.reshape(*x.shape[:3], side * side, f)
    return sum(
        products[:, i : i + rows, j : j + columns, n] for n, (i, j) in enumerate(_taps(side))
    )


def _gather_and_multiply(x, kernel, precision):
    """Convolve as `_multiply_and_shift`, by gathered windows (im2col) times the kernel."""
    side, _, c, f = kernel.shape
    # XLA would fuse the gathering into the product and lose its fast kernel.
    windows = lax.optimization_barrier(jnp.concatenate(_shifted(x, side), -1))
    rows = windows.reshape(-1, side * side * c)
    products = jnp.matmul(rows, kernel.reshape(-1, f), precision=precision)
    return products.reshape(*windows.shape[:3], f)


def _image_gradient(image, kernel, d_features, stride, precision):
    shape, kernel = image.shape[1:], _kernel_to_depth(kernel, stride)
    side, _, c, f = kernel.shape
    matrix = kernel.transpose(3, 0, 1, 2).reshape(f, side * side * c)
    products = jnp.matmul(d_features.reshape(-1, f), matrix, precision=precision)
    products = products.reshape(*d_features.shape[:3], side * side, c)
    shifted = [_shift_back(products[:, :, :, n], tap, side) for n, tap in enumerate(_taps(side))]
    d_image = _depth_to_space(sum(shifted), stride)
    beyond = [(0, n - m) for n, m in zip(shape, d_image.shape[1:], strict=True)]
    return jnp.pad(d_image, ((0, 0), *beyond))


def _kernel_gradient(image, kernel, d_features, stride, precision):
    x, kernel = _to_depth(image, kernel, stride)
    side, _, c, f = kernel.shape
    columns = d_features.reshape(-1, f)
    products = [
        jnp.matmul(rows.reshape(-1, c).T, columns, precision=precision)
        for rows in _shifted(x, side)
    ]
    return _depth_to_kernel(jnp.stack(products).reshape(kernel.shape), stride)


def _to_depth(image, kernel, stride):
    """Return image and kernel, rearranged for stride 1, in the kernel's dtype."""
    x = _space_to_depth(_crop_to_windows(image, len(kernel), stride), stride)
    return x.astype(kernel.dtype), _kernel_to_depth(kernel, stride)


def _taps(side):
    """Return the positions of a kernel's taps, row by row."""
    return [(i, j) for i in range(side) for j in range(side)]


def _shifted(x, side):
    """Return the pixels under each tap, K * K times [B, H - K + 1, W - K + 1, C]."""
    rows, columns = x.shape[1] - side + 1, x.shape[2] - side + 1
    return [x[:, i : i + rows, j : j + columns] for i, j in _taps(side)]


def _shift_back(x, tap, side):
    """Shift [B, H, W, C] to the pixels under a tap, padded to [B, H + K - 1, W + K - 1, C]."""
    around = [(n, side - 1 - n) for n in tap]
    return jnp.pad(x, ((0, 0), *around, (0, 0)))


def _crop_to_windows(image, size, stride):
    rows, columns = ((n - size) // stride * stride + size for n in image.shape[1:3])
    return image[:, :rows, :columns]


def _space_to_depth(image, s):
    """Rearrange [B, H, W, C] to [B, H/s, W/s, s*s*C]."""
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // s, s, w // s, s, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // s, w // s, s * s * c)


def _depth_to_space(blocks, s):
    """Rearrange [B, H, W, s*s*C] to [B, H*s, W*s, C]."""
    b, h, w, c = blocks.shape
    image = blocks.reshape(b, h, w, s, s, c // (s * s)).transpose(0, 1, 3, 2, 4, 5)
    return image.reshape(b, h * s, w * s, c // (s * s))


def _kernel_to_depth(kernel, s):
    """Rearrange [K, K, C, F] to [K/s, K/s, s*s*C, F]."""
    k, _, c, f = kernel.shape
    blocks = kernel.reshape(k // s, s, k // s, s, c, f).transpose(0, 2, 1, 3, 4, 5)
    return blocks.reshape(k // s, k // s, s * s * c, f)


def _depth_to_kernel(kernel, s):
    """Rearrange [K, K, s*s*C, F] to [K*s, K*s, C, F]."""
    k, _, c, f = kernel.shape
    blocks = kernel.reshape(k, k, s, s, c // (s * s), f).transpose(0, 2, 1, 3, 4, 5)
    return blocks.reshape(k * s, k * s, c // (s * s), f)
