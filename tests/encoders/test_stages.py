"""Stages against scipy.ndimage and NumPy, and what all of them have in common."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, signal

from encoders import make_encoder, make_encoders
from encoders.stages import Fovea, Gabor, Motion

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (13, 17, 6), dtype=np.uint8)
FLOATS = (BYTES / 255).astype(np.float32)


def run(spec, image):
    return np.asarray(jax.jit(make_encoder(spec).apply)({}, jnp.asarray(image)))


def by_channel(function, image=FLOATS):
    channels = np.moveaxis(image.astype(np.float64), -1, 0)
    return np.stack([function(channel) for channel in channels], -1)


def gray():
    return np.stack([FLOATS[..., i : i + 3] @ [0.299, 0.587, 0.114] for i in (0, 3)], -1)


def sobel(channel):
    along = [ndimage.sobel(channel, axis, mode="nearest") for axis in (0, 1)]
    return np.hypot(*along) / np.sqrt(20)


def gaussian(channel, sigma):
    return ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=3.0)


def log_polar(channel):
    y, x = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
    radius, angle = 1.5 * (6 / 1.5) ** (y / 4), 2 * np.pi * x / 7
    places = [6 + radius * np.sin(angle), 8 + radius * np.cos(angle)]
    return ndimage.map_coordinates(channel, places, order=1, mode="nearest")


EXPECTED = {
    "gray": gray,
    "edges": lambda: by_channel(sobel),
    "blur(sigma=1.3)": lambda: by_channel(lambda x: gaussian(x, 1.3)),
    "blur(sigma=9)": lambda: by_channel(lambda x: gaussian(x, 9)),
    "dog(center=0.8, surround=2)": lambda: by_channel(
        lambda x: (1 + gaussian(x, 0.8) - gaussian(x, 2)) / 2
    ),
    "downsample(factor=3)": lambda: by_channel(
        lambda x: ndimage.uniform_filter(x, 3)[1:12:3, 1:15:3]
    ),
    "crop(height=4, width=7)": lambda: FLOATS[4:8, 5:12],
    "crop(height=4, width=7, top=0, left=10)": lambda: FLOATS[:4, 10:],
    "fovea(rings=5, angles=7, inner=1.5)": lambda: by_channel(log_polar),
    "motion": lambda: (1 + FLOATS[..., 3:] - FLOATS[..., :3]) / 2,
    "motion(channels=2)": lambda: (1 + FLOATS[..., 2:] - FLOATS[..., :-2]) / 2,
    "gray | motion": lambda: (1 + gray()[..., 1:] - gray()[..., :1]) / 2,
    "flatten": lambda: FLOATS.ravel(),
}
AVERAGES = ("gray", "blur", "downsample", "crop", "fovea")
"""Stages that return bytes for bytes."""


@pytest.mark.parametrize("spec", EXPECTED)
def test_stages_agree_with_others(spec):
    expected = EXPECTED[spec]()
    got = run(spec, FLOATS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)
    of_bytes = run(spec, BYTES)
    if spec.split("(")[0] in AVERAGES:
        assert of_bytes.dtype == np.uint8
        np.testing.assert_allclose(of_bytes, 255 * expected, atol=0.5 + 1e-3)
    else:
        assert of_bytes.dtype == np.float32
        # Two roundings to bytes, where a stage that averages comes before.
        np.testing.assert_allclose(of_bytes, expected, atol=0.5 / 255 if "|" in spec else 1e-6)


def test_gabor_agrees_with_its_formula():
    bank = Gabor(orientations=3, wavelengths=(3.0, 5.0), stride=2)
    got = np.asarray(bank.apply({}, jnp.asarray(FLOATS)))
    assert got.shape == (6, 8, 6 * 3 * 6) and got.dtype == np.float32
    kernels = bank.kernels()
    assert kernels.shape == (2, 6, 20, 20)
    np.testing.assert_allclose(kernels.sum((2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(kernels).sum((2, 3)), 2)
    # The second wavelength, the second of three orientations: 60 degrees.
    y, x = np.mgrid[:20, :20] - 9.5
    along = x / 2 + y * np.sqrt(3) / 2
    odd = np.exp(-(x**2 + y**2) / (2 * 2.8**2)) * np.sin(2 * np.pi * along / 5)
    np.testing.assert_allclose(kernels[1, 4], 2 * odd / np.abs(odd).sum(), atol=1e-12)
    padded = np.pad(FLOATS, ((9, 9), (9, 9), (0, 0)), mode="edge")
    correlate = lambda channel, kernel: signal.correlate2d(channel, kernel, "valid")[::2, ::2]
    responses = np.asarray(
        [
            [correlate(channel, kernel) for kernel in kernels.reshape(12, 20, 20)]
            for channel in np.moveaxis(padded, -1, 0)
        ]
    )[:, :, :6, :8]
    even, odd = responses[:, :6], responses[:, 6:]
    simple = np.maximum(np.concatenate([even, odd], 1), 0)
    cells = np.concatenate([simple, np.sqrt((even**2 + odd**2) / 2)], 1)
    expected = np.moveaxis(cells.reshape(-1, 6, 8), 0, -1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    for kind, channels in (("simple", slice(0, 12)), ("complex", slice(12, 18))):
        some = np.asarray(bank.clone(cells=kind).apply({}, jnp.asarray(FLOATS[..., :1])))
        np.testing.assert_allclose(some, expected[..., channels], atol=1e-5)


def test_complex_cells_do_not_care_where_a_grating_is_but_how_it_is_turned():
    x = np.arange(64)
    cell = make_encoder("gabor(orientations=2, wavelengths=(8.0,), cells=complex)")
    gratings = [0.5 + 0.5 * np.cos(2 * np.pi * x / 8 + phase) for phase in (0, 1, 2)]
    images = np.stack([np.broadcast_to(g, (64, 64)) for g in gratings])[..., None]
    responses = np.asarray(cell.apply({}, jnp.asarray(images, jnp.float32)))[:, 16, 16]
    assert responses[:, 0].min() > 0.3 and responses[:, 1].max() < 0.05
    assert np.ptp(responses[:, 0]) < 0.05


ALL = [*EXPECTED, "gabor", "gabor(stride=3, cells=simple)"]


@pytest.mark.parametrize("spec", ALL)
def test_leading_axes_range_and_gradient(spec):
    images = np.stack([BYTES, 255 * (BYTES > 128), BYTES * 0]).astype(np.uint8)
    one = np.stack([run(spec, image) for image in images])
    got = run(spec, images.reshape(3, 1, *BYTES.shape))
    tolerance = 1 if got.dtype == np.uint8 else 1e-6
    np.testing.assert_allclose(
        got.reshape(one.shape).astype(float), one.astype(float), atol=tolerance
    )
    if got.dtype == np.float32:
        assert got.min() > -1e-6 and got.max() < 1 + 1e-6
    module = make_encoder(spec)
    black = jnp.zeros((2, *BYTES.shape))
    gradient = jax.grad(lambda x: module.apply({}, x).sum())(black)
    assert jnp.isfinite(gradient).all()
    empty = jax.eval_shape(lambda x: module.apply({}, x), np.zeros((0, *BYTES.shape), np.uint8))
    assert empty.shape == (0, *one.shape[1:])


def test_edges_reach_1():
    # The brightest where (2, 1) * (gx, gy) is positive: the strongest edge that there is.
    weights = np.asarray([[-3, 2, 1], [-4, 0, 4], [-1, -2, 3]])
    image = (weights > 0).astype(np.float32)[..., None]
    assert np.isclose(run("edges", image)[1, 1, 0], 1)


def test_fovea_sees_a_ring_as_a_row():
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.abs(np.hypot(x, y) - 10) < 1.5).astype(np.float32)[..., None]
    seen = run("fovea(rings=9, angles=16, inner=2)", ring)[..., 0]
    radii = np.geomspace(2, 20, 9)
    assert (seen[np.abs(radii - 10).argmin()] > 0.5).all()
    assert (seen[np.abs(radii - 10) > 3] == 0).all()
    assert Fovea().coordinates(41, 41)[0].shape == (32, 64)


LEAVES = {"vision": jax.ShapeDtypeStruct((40, 48, 3), jnp.uint8)}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("edges | motion | mlp", "character 9: motion: needs two or more frames.*--frames 2"),
        (
            "gray | motion | mlp",
            "character 8: motion: needs.*of 1 channels each, got 1 channels",
        ),
        ("gray | gray | mlp", "character 8: gray: takes images of red.*a frame has 1 channels"),
        ("crop(height=50) | mlp", "rows -5 to 45 .* image of 40x48"),
        ("crop(left=20) | mlp", "columns 20 to 52 .* image of 40x48"),
        ("crop(height=0) | mlp", "not a part"),
        ("downsample(factor=41) | mlp", "factor is 41; for images of 40x48 .* 1 to 40"),
        ("downsample(factor=0) | mlp", "factor is 0"),
        ("blur(sigma=0) | mlp", "blur: sigma is 0"),
        ("dog(center=2, surround=1) | mlp", "the center has to be narrower"),
        ("dog(center=-1) | mlp", "dog: center is -1"),
        ("fovea(inner=20) | mlp", "inner is 20; for images of 40x48 .* below 19.5"),
        ("fovea(rings=1) | mlp", "1 rings"),
        ("gabor(stride=50) | mlp", "stride is 50; for images of 40x48"),
        ("gabor(wavelengths=()) | mlp", "wavelengths is \\(\\)"),
        ("gabor(wavelengths=(1.0,)) | mlp", "wavelengths is \\(1.0,\\)"),
        ("gabor(orientations=0) | mlp", "orientations is 0"),
        (
            "gabor(cells=none) | mlp",
            "cells is 'none'; it has to be 'both' or 'simple' or 'complex'",
        ),
        ("crop | downsample(factor=2) | nature_cnn", "character 31: nature_cnn: an image of 16x16"),
        ("edges", "character 1: 'edges' returns float32\\[1, 40, 48, 3\\].*end the chain"),
        ("edges | mlp", "character 9: 'mlp' returns.*flatten before mlp"),
    ],
)
def test_what_does_not_fit_is_told(spec, why):
    with pytest.raises(ValueError, match=f"^encoder {re.escape(repr(spec))}, .*{why}"):
        make_encoders(spec, LEAVES)


@pytest.mark.parametrize(
    "spec", ["gray | edges | nature_cnn", "edges | flatten | mlp", "gray | mlp"]
)
def test_chains_with_encoders(spec):
    assert set(make_encoders(spec, LEAVES)) == {"vision"}


@pytest.mark.parametrize(
    ("channels", "spec", "expected"),
    [
        (9, "motion | flatten", 3),
        (9, "gray | motion | flatten", 1),
        (9, "motion | gray | flatten", 3),
        (3, "motion | flatten", 1),  # depth, of one channel
        (9, "gray | gabor(cells=simple) | motion | flatten", 16),
        (9, "motion(channels=1) | motion | flatten", 1),
    ],
)
def test_motion_knows_the_channels_of_a_frame(channels, spec, expected):
    leaves = {"eye": jax.ShapeDtypeStruct((12, 12, channels), jnp.uint8)}
    stages = make_encoders(spec, leaves, frames=3)["eye"].stages
    assert [x.channels for x in stages if isinstance(x, Motion)][-1] == expected


def test_frames_of_one_channel_are_no_colours():
    leaves = {"eye": jax.ShapeDtypeStruct((12, 12, 3), jnp.uint8)}
    with pytest.raises(ValueError, match="character 1: gray: takes images of red.* has 1 channels"):
        make_encoders("gray | flatten", leaves, frames=3)


def test_motion_after_a_stage_of_ones_own_has_to_be_told(tmp_path, monkeypatch):
    (tmp_path / "a_pupil.py").write_text(
        "import flax.linen as nn\n\nclass Pupil(nn.Module):\n"
        "    def __call__(self, x):\n        return x[..., :2]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    leaves = {"eye": jax.ShapeDtypeStruct((12, 12, 6), jnp.uint8)}
    with pytest.raises(ValueError, match="character 17: it is not known.*motion\\(channels=N\\)"):
        make_encoders("a_pupil:Pupil | motion | flatten", leaves, frames=2)
    make_encoders("a_pupil:Pupil | motion(channels=1) | flatten", leaves, frames=2)
