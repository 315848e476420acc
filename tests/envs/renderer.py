"""Pictures that MuJoCo's own renderer draws, and how far ours are from them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.camera import Image

# Debian's libosmesa6 or libegl1 with Mesa give one of these; a display gives the last.
GL = ("egl", "osmesa", "glfw")
SLICES, QUADS = 128, 64
"""Numbers of slices of MuJoCo's balls, which are round in ours, and of quads along the sides of its
boxes and planes, which are lit only at the corners of quads."""

SCRIPT = """
import sys, numpy as np, mujoco
given = np.load("states.npz")
option, pictures = mujoco.MjvOption(), []
option.sitegroup[:] = option.tendongroup[:] = 0
option.flags[mujoco.mjtVisFlag.mjVIS_SKIN] = 0
for i, states in enumerate(given["qpos"]):
    model = mujoco.MjModel.from_binary_path(f"{i}.mjb")
    data = mujoco.MjData(model)
    with mujoco.Renderer(model, *given["size"]) as renderer:
        for qpos in states:
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            for camera, hidden in zip(given["cameras"], given["hidden"]):
                option.geomgroup[:3] = ~hidden
                renderer.update_scene(data, camera.item(), option)
                for flag in ("SHADOW", "REFLECTION", "HAZE"):
                    renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
                rgb = renderer.render().copy()
                renderer.enable_depth_rendering()
                depth = renderer.render().copy()
                renderer.disable_depth_rendering()
                renderer.enable_segmentation_rendering()
                ids, kinds = renderer.render().copy().transpose(2, 0, 1)
                renderer.disable_segmentation_rendering()
                ids[kinds != mujoco.mjtObj.mjOBJ_GEOM] = -1
                pictures.append((rgb, depth, ids))
rgb, depth, ids = (np.stack(x) for x in zip(*pictures))
np.savez(sys.argv[1], rgb=rgb, depth=depth, ids=ids)
"""


def mujoco_draws(
    models: Sequence[mujoco.MjModel],
    qpos: np.ndarray,
    cameras: Sequence[str] | Sequence[int],
    size: tuple[int, int],
    folder: Path,
    hidden: Sequence[Sequence[int]] | None = None,
) -> Image:
    """Draw states with `mujoco.Renderer`, without what our camera leaves out: shadows, reflections,
    haze, sites, tendons and skins. Skips the test where there is no GL library.

    It runs in a process of its own: which GL library it uses is settled when it is imported.

    Args:
        models: M of them.
        qpos: float[M, S, nq], states of each.
        cameras: C names or numbers.
        size: height and width, pixels.
        folder: an empty one.
        hidden: geom groups, of 0 to 2, that each camera does not see; None for none.

    Returns:
        leaves [M, S, C, height, width, ...]; labels are the geoms' ids, -1 for all else.
    """
    for i, model in enumerate(models):
        quality = model.vis.quality
        quality.offsamples, quality.numslices, quality.numstacks = 4, SLICES, SLICES // 2
        quality.numquads = QUADS
        mujoco.mj_saveModel(model, str(folder / f"{i}.mjb"))
    unseen = np.array([np.isin(range(3), groups) for groups in hidden or [()] * len(cameras)])
    np.savez(folder / "states.npz", qpos=qpos, size=size, cameras=cameras, hidden=unseen)
    chosen = os.environ.get("MUJOCO_GL")
    reasons = []
    for gl in (chosen,) if chosen else GL:
        env = os.environ | {"MUJOCO_GL": gl, "PYOPENGL_PLATFORM": gl}
        command = [sys.executable, "-c", SCRIPT, f"{gl}.npz"]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
        if done.returncode == 0:
            drawn = np.load(folder / f"{gl}.npz")
            axes = *qpos.shape[:2], len(cameras)
            shaped = (drawn[k].reshape(*axes, *drawn[k].shape[1:]) for k in ("rgb", "depth", "ids"))
            return Image(*shaped)
        reasons.append(f"{gl}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return pytest.skip("MuJoCo's renderer finds no GL library here: " + "; ".join(reasons))


def off_edge(labels: np.ndarray) -> np.ndarray:
    """bool[H, W], pixels whose eight neighbours show the same geom."""
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.all([shift == labels for shift in shifts], axis=0)


def assert_alike(ours: Image, theirs: Image, what: str) -> None:
    """Assert what docs/camera.md promises of every picture: 99 % of the labels off edges, 99 % of
    their depths within 0.5 %, and colours of 27 dB."""
    inner = off_edge(theirs.segmentation)
    same = inner & (ours.segmentation == theirs.segmentation)
    assert same.sum() >= 0.99 * inner.sum(), f"{what}: labels {same.sum() / inner.sum():.4f}"
    seen = same & (theirs.segmentation >= 0)
    close = np.abs(ours.depth[seen] / theirs.depth[seen] - 1) < 0.005
    assert close.sum() >= 0.99 * close.size, f"{what}: depths {close.mean():.4f}"
    error = np.square(ours.rgb.astype(float) - theirs.rgb).mean()
    decibels = 10 * np.log10(255**2 / max(error, 1e-6))
    assert decibels >= 27, f"{what}: {decibels:.1f} dB"
