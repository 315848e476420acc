"""Define a stage of simple and complex cells, as in the primary visual cortex (V1)."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from encoders.pixels import length, scale_pixels
from encoders.registry import register

WIDTH = 0.56
"""Standard deviation of the envelope by the wavelength: a bandwidth of an octave."""


@register("gabor", "Dapello et al. 2020, doi 10.1101/2020.06.16.154542")
class Gabor(nn.Module):
    """Convolves each channel with a bank of Gabor functions of several orientations and sizes.

    Of each orientation and wavelength there are an even and an odd function. Simple cells are
    max(even, 0) and max(odd, 0), complex cells sqrt((even^2 + odd^2) / 2), after the VOneBlock of
    Dapello, Marques et al., "Simulating a primary visual cortex at the front of CNNs improves
    robustness to image perturbations", NeurIPS 2020, with a regular grid in place of parameters
    drawn from V1's distributions, and without its noise. Functions sum to 0 and their absolute
    values to 2, so that no response to pixels between 0 and 1 is above 1.

    Attributes:
        orientations: their number, evenly spread over half a turn.
        wavelengths: of the gratings, pixels.
        stride: distance of neighbouring cells, pixels.
        cells: which there are.
    """

    orientations: int = 4
    wavelengths: tuple[float, ...] = (4.0, 8.0)
    stride: int = 2
    cells: Literal["both", "simple", "complex"] = "both"

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the responses of all cells; beyond its borders the image goes on as at them.

        Args:
            image: uint8 or float[..., H, W, C]; `gray` first leaves one channel.

        Returns:
            float32[..., H // stride, W // stride, C * kinds * wavelengths * orientations]: of each
            channel even, odd and complex cells, or those of the kind that there is.

        Raises:
            ValueError: a setting is out of range, or the image is smaller than the stride.
        """
        pixels = scale_pixels(image)
        self._check(*image.shape[-3:-1])
        even, odd = self._responses(pixels)
        cells = []
        if self.cells != "complex":
            cells += [nn.relu(even), nn.relu(odd)]
        if self.cells != "simple":
            cells.append(length(even, odd) / math.sqrt(2))
        found = jnp.concatenate(cells, -1)
        return found.reshape(*found.shape[:-2], math.prod(found.shape[-2:]))

    @nn.nowrap
    def frame_channels(self, channels: int) -> int:
        """Return how many channels one frame of `channels` has afterwards."""
        kinds = {"both": 3, "simple": 2, "complex": 1}[self.cells]
        return channels * kinds * len(self.wavelengths) * self.orientations

    @nn.nowrap
    def kernels(self) -> np.ndarray:
        """Return the functions, float64[2, wavelengths * orientations, side, side], even first."""
        waves, envelopes, mean, scale = self._functions()
        kernels = np.einsum("kh,kw->khw", *waves)
        kernels -= mean * np.einsum("kh,kw->khw", *envelopes)
        return np.stack([kernels.real, kernels.imag]) * scale

    @nn.nowrap
    def _functions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what the K functions are made of: products of one of rows and one of columns.

        A Gabor function, with the even one as its real and the odd one as its imaginary part, is
        exp(-y^2 / 2 s^2 + i f y) exp(-x^2 / 2 s^2 + i g x).

        Returns:
            the two factors, complex[2, K, side]; those of the envelope, float[2, K, side]; the
            share of the envelope to subtract so that the sum is 0, [K, 1, 1]; the scales of even
            and odd functions, [2, K, 1, 1].
        """
        turns = np.pi * np.arange(self.orientations) / self.orientations
        wavelength, angle = (x.ravel() for x in np.meshgrid(self.wavelengths, turns, indexing="ij"))
        # Three standard deviations around a block of stride x stride pixels, of which it is a cell.
        around = math.ceil(3 * WIDTH * max(self.wavelengths))
        side = self.stride + 2 * around
        offsets = np.arange(side) - (side - 1) / 2
        envelope = np.exp(-0.5 * (offsets / (WIDTH * wavelength[:, None])) ** 2)
        envelopes = np.stack([envelope, envelope])
        frequencies = np.stack([np.sin(angle), np.cos(angle)]) * 2 * np.pi / wavelength
        waves = envelopes * np.exp(1j * frequencies[..., None] * offsets)
        products = [np.einsum("kh,kw->khw", *x) for x in (waves, envelopes)]
        total = lambda x: x.sum((1, 2), keepdims=True)
        mean = total(products[0]).real / total(products[1])
        balanced = products[0] - mean * products[1]
        scale = 2 / np.stack([total(np.abs(x)) for x in (balanced.real, balanced.imag)])
        return waves, envelopes, mean, scale

    @nn.nowrap
    def _responses(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the responses of even and odd functions.

        The functions' factors make two products of matrices of what would be a large convolution.

        Args:
            pixels: float32[..., H, W, C].

        Returns:
            float32[..., H // stride, W // stride, C, K] each.
        """
        waves, envelopes, mean, scale = self._functions()
        height, width = pixels.shape[-3:-1]
        rows, row_envelopes = (self._matrix(x[0], height) for x in (waves, envelopes))
        columns, column_envelopes = (self._matrix(x[1], width) for x in (waves, envelopes))
        down = np.stack([rows.real, rows.imag, row_envelopes])
        none = np.zeros_like(column_envelopes)
        even = np.stack([columns.real, -columns.imag, -mean * column_envelopes]) * scale[0]
        odd = np.stack([columns.imag, columns.real, none]) * scale[1]
        along = np.stack([even, odd])
        product = lambda form, matrix, x: jnp.einsum(
            form, jnp.asarray(matrix, jnp.float32), x, precision=lax.Precision.HIGHEST
        )
        x = product("tkih,...hwc->...ctkiw", down, pixels)
        both = product("ptkjw,...ctkiw->p...ijck", along, x)
        return both[0], both[1]

    @nn.nowrap
    def _matrix(self, factors: np.ndarray, n: int) -> np.ndarray:
        """Return [K, n // stride, n], which apply factors [K, side] along n pixels."""
        number, side = factors.shape
        matrix = np.zeros((n // self.stride, n, number), factors.dtype)
        for i in range(n // self.stride):
            first = i * self.stride - (side - self.stride) // 2
            places = np.clip(first + np.arange(side), 0, n - 1)
            np.add.at(matrix[i], places, factors.T)
        return np.moveaxis(matrix, -1, 0)

    @nn.nowrap
    def _check(self, height: int, width: int) -> None:
        if not 1 <= self.orientations <= 36:
            raise ValueError(f"gabor: orientations is {self.orientations}; it has to be 1 to 36")
        if not self.wavelengths or not all(2 <= x <= 100 for x in self.wavelengths):
            raise ValueError(
                f"gabor: wavelengths is {tuple(self.wavelengths)}; there has to be at least one, "
                f"and each has to be 2 to 100 pixels"
            )
        if not 1 <= self.stride <= min(height, width):
            raise ValueError(
                f"gabor: stride is {self.stride}; for images of {height}x{width} it has to be 1 to "
                f"{min(height, width)}"
            )
