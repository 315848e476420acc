"""Read meshes from a compiled model, cut into strips of triangles for `rasterizer`."""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

# Triangles in a strip; a power of two, 32 or more.
STRIP = 256
# The least cosine between a corner's own normal and the triangle's with which the former is used
# (mjr_uploadMesh).
_SMOOTH = 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Meshes:
    """The meshes of a scene. The last strip of a mesh is padded with triangles of size 0.

    Attributes:
        corners: float32[S, STRIP, 3, 3], corners of each triangle in the geom's frame, metres.
        normals: float32[S, STRIP, 3, 3], unit normals at the corners.
        starts: int[A + 1], index of the first strip of each of the A meshes; the last entry is S.
    """

    corners: np.ndarray
    normals: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_model(cls, model: mujoco.MjModel, ids: Sequence[int]) -> "Meshes":
        """Read the meshes `ids` of `model`."""
        read = [_read(model, i) for i in ids]
        none = np.zeros((0, STRIP, 3, 3), np.float32)
        corners, normals = (
            np.concatenate([none, *(_strips(parts[i]) for parts in read)]) for i in range(2)
        )
        numbers = [-(-len(corners) // STRIP) for corners, _ in read]
        return cls(corners, normals, np.cumsum([0, *numbers]))

    def strips(self, asset: int) -> range:
        """Return the indices of the strips of mesh `asset`."""
        return range(self.starts[asset], self.starts[asset + 1])


def _strips(faces: np.ndarray) -> np.ndarray:
    """Return float32[S, STRIP, 3, 3] of float[T, 3, 3], with zeros at the end."""
    number = -(-len(faces) // STRIP)
    full = np.zeros((number * STRIP, 3, 3), np.float32)
    full[: len(faces)] = faces
    return full.reshape(number, STRIP, 3, 3)


def _read(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the triangles and the normals there, both float64[T, 3, 3]."""
    faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[faces]]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[faces]]
    corners, normals = corners.astype(np.float64), normals.astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    own = np.einsum("tci,ti->tc", normals, flat) < _SMOOTH
    # MuJoCo leaves the normals of a mesh with texture coordinates as they are.
    if model.mesh_texcoordadr[mesh] < 0:
        normals = np.where(own[..., None], flat[:, None], normals)
    return corners, normals
