"""Meshes as a compiled model holds them, cut into strips of triangles for `rasterizer`."""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

# Triangles in a strip; a power of two, 32 or more.
STRIP = 256
# A corner's normal is used where it is that near the triangle's own (mjr_uploadMesh).
_SMOOTH = 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Meshes:
    """The meshes of a scene. Strips that are not full end in triangles of no size.

    Attributes:
        corners: float32[S, STRIP, 3, 3], of each triangle, in the geom's frame, metres.
        normals: float32[S, STRIP, 3, 3], unit normals there.
        starts: int[A + 1], where each mesh's strips begin.
    """

    corners: np.ndarray
    normals: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_model(cls, model: mujoco.MjModel, ids: Sequence[int]) -> "Meshes":
        """Reads the meshes `ids` of `model`."""
        read = [_read(model, i) for i in ids]
        none = np.zeros((0, STRIP, 3, 3), np.float32)
        corners, normals = (
            np.concatenate([none, *(_strips(parts[i]) for parts in read)]) for i in range(2)
        )
        numbers = [-(-len(corners) // STRIP) for corners, _ in read]
        return cls(corners, normals, np.cumsum([0, *numbers]))

    def strips(self, asset: int) -> range:
        """Which strips mesh `asset` has."""
        return range(self.starts[asset], self.starts[asset + 1])


def _strips(faces: np.ndarray) -> np.ndarray:
    """float32[S, STRIP, 3, 3] of float[T, 3, 3], zeros at the end."""
    number = -(-len(faces) // STRIP)
    full = np.zeros((number * STRIP, 3, 3), np.float32)
    full[: len(faces)] = faces
    return full.reshape(number, STRIP, 3, 3)


def _read(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the triangles and normals there, both float64[T, 3, 3]."""
    faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[faces]]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[faces]]
    corners, normals = corners.astype(np.float64), normals.astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    own = np.einsum("tci,ti->tc", normals, flat) < _SMOOTH
    # A mesh with texture coordinates keeps its own normals everywhere.
    if model.mesh_texcoordadr[mesh] < 0:
        normals = np.where(own[..., None], flat[:, None], normals)
    return corners, normals
