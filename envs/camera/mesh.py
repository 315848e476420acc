"""Meshes: each ray goes down a tree of boxes to the triangles that it may hit.

The tree is complete: triangles are halved along the longest axis of what is left until two remain,
so that the place of every node in depth-first order is known beforehand. A ray that misses a box
skips what is in it by one jump (Smits 1998, "Efficiency issues for ray tracing"), and needs no
stack. Triangles show their front side only, as in MuJoCo's renderer.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.camera.chunks import by_chunks
from envs.camera.primitives import FAR, Hit, Primitive, Rays

_TINY = np.float32(1e-18)
# Triangles in a leaf.
_LEAF = 2
# A corner's normal is used where it is that near the triangle's own (mjr_uploadMesh).
_SMOOTH = 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Meshes:
    """The meshes of a scene.

    Attributes:
        boxes: float32[K, 6], lowest and highest corner of each node's box, metres.
        skips: int32[K], the node that follows in depth-first order when this one is skipped.
        leaves: int32[K], the first of a leaf's triangles, -1 for inner nodes.
        triangles: float32[T, 9], a corner and the two edges from it, metres.
        normals: float32[T, 9], unit normals at the three corners.
        roots: int32[A + 1], where each mesh's nodes begin.
        extents: float32[A, 3], half lengths of boxes around them, centred on the geom's origin, m.
    """

    boxes: np.ndarray
    skips: np.ndarray
    leaves: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    roots: np.ndarray
    extents: np.ndarray

    @classmethod
    def from_model(cls, model: mujoco.MjModel, ids: Sequence[int]) -> "Meshes":
        """Reads the meshes `ids` of `model`."""
        trees, extents = [], []
        for i in ids:
            corners, normals = _read(model, i)
            trees.append(_tree(corners, normals))
            extents.append(np.abs(corners).max((0, 1)))
        nodes = np.cumsum([0, *(len(tree[0]) for tree in trees)])
        faces = np.cumsum([0, *(len(tree[3]) for tree in trees)])
        join = lambda parts, shape: np.concatenate([np.zeros((0, *shape)), *parts])
        leaves = [np.where(t[2] < 0, -1, t[2] + f) for t, f in zip(trees, faces[:-1], strict=True)]
        return cls(
            join([t[0] for t in trees], (6,)).astype(np.float32),
            join([t[1] + n for t, n in zip(trees, nodes[:-1], strict=True)], ()).astype(np.int32),
            join(leaves, ()).astype(np.int32),
            join([t[3] for t in trees], (9,)).astype(np.float32),
            join([t[4] for t in trees], (9,)).astype(np.float32),
            nodes.astype(np.int32),
            np.array(extents, np.float32).reshape(-1, 3),
        )

    def hit(self, rays: Rays, geom: Primitive) -> Hit:
        """Where rays enter mesh `geom.asset`."""
        root, end = (jnp.asarray(self.roots)[geom.asset + i] for i in range(2))
        origin = -(geom.axes * geom.centre[:, None]).sum(0)
        towards = [rays.dot(geom.axes[:, i]) for i in range(3)]
        boxes, triangles = (jnp.asarray(x) for x in (self.boxes, self.triangles))
        skips, leaves = jnp.asarray(self.skips), jnp.asarray(self.leaves)
        normals = jnp.asarray(self.normals)
        row = lambda table, i: table.at[i].get(mode="promise_in_bounds")

        def search(*direction):
            slopes = [1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d) for d in direction]

            def searching(state):
                return (state[0] < end).any()

            def visit(state):
                node, depth, nearest = state
                active = node < end
                here = jnp.minimum(node, end - 1)
                leaf = row(leaves, here)
                touched = active & _touches(row(boxes, here), origin, slopes, rays.near, depth)
                first = jnp.maximum(leaf, 0)
                for i in range(_LEAF):
                    reach, _, _ = _meet(row(triangles, first + i), origin, direction)
                    closer = touched & (leaf >= 0) & (reach > rays.near) & (reach < depth)
                    depth = jnp.where(closer, reach, depth)
                    nearest = jnp.where(closer, first + i, nearest)
                onward = jnp.where(touched & (leaf < 0), here + 1, row(skips, here))
                return jnp.where(active, onward, node), depth, nearest

            everywhere = jnp.zeros(direction[0].shape, jnp.int32)
            begin = (everywhere + root, jnp.full(everywhere.shape, FAR), everywhere)
            _, depth, nearest = jax.lax.while_loop(searching, visit, begin)
            _, right, up = _meet(row(triangles, nearest), origin, direction)
            corners = row(normals, nearest)
            mixed = [
                corners[:, i] * (1 - right - up)
                + corners[:, 3 + i] * right
                + corners[:, 6 + i] * up
                for i in range(3)
            ]
            length = jax.lax.rsqrt(sum(x * x for x in mixed))
            return depth, *(x * length for x in mixed)

        depth, *normal = by_chunks(search, *towards)
        turned = tuple(sum(geom.axes[k, i] * n for i, n in enumerate(normal)) for k in range(3))
        return Hit(depth, turned)


def _touches(box, origin, slopes, near, depth):
    """Whether rays meet boxes float32[n, 6] between `near` and `depth`."""
    enter, leave = near, depth
    for i, slope in enumerate(slopes):
        ends = (box[:, i] - origin[i]) * slope, (box[:, 3 + i] - origin[i]) * slope
        enter = jnp.maximum(enter, jnp.minimum(*ends))
        leave = jnp.minimum(leave, jnp.maximum(*ends))
    return enter <= leave


def _meet(triangle, origin, direction):
    """Where rays cross triangles float32[n, 9] (Möller and Trumbore 1997).

    Returns depth, `FAR` for a miss or a back side, and how far along the two edges.
    """
    corner, first, second = ([triangle[:, 3 * k + i] for i in range(3)] for k in range(3))
    offset = [origin[i] - corner[i] for i in range(3)]
    across = _cross(direction, second)
    facing = _dot(first, across)
    inverse = 1 / jnp.maximum(facing, _TINY)
    right = _dot(offset, across) * inverse
    lifted = _cross(offset, first)
    up = _dot(direction, lifted) * inverse
    depth = _dot(second, lifted) * inverse
    inside = (facing > _TINY) & (right >= 0) & (up >= 0) & (right + up <= 1)
    return jnp.where(inside, depth, FAR), right, up


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]


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


def _tree(corners: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, ...]:
    """Boxes, skips, leaves, triangles and normals of one mesh, as in `Meshes`, counted from 0."""
    number = len(corners)
    depth = max(0, int(np.ceil(np.log2(max(number, 1) / _LEAF))))
    # Some triangles come twice, so that each leaf has its number.
    order = np.minimum(np.arange(_LEAF << depth), number - 1)
    middles = corners.mean(1)
    for level in range(depth):
        groups = order.reshape(1 << level, -1)
        places = middles[groups]
        axis = np.ptp(places, axis=1).argmax(1)
        keys = np.take_along_axis(places, axis[:, None, None], 2)[..., 0]
        order = np.take_along_axis(groups, keys.argsort(1, kind="stable"), 1).reshape(-1)
    corners, normals = corners[order], normals[order]
    low, high = (f(corners.reshape(1 << depth, -1, 3), axis=1) for f in (np.min, np.max))
    size = (2 << depth) - 1
    boxes, skips = np.zeros((size, 6)), np.zeros(size, int)
    leaves = np.full(size, -1)
    # Depth-first, a node at some level is followed by all nodes below it.
    for level in range(depth, -1, -1):
        below = (2 << (depth - level)) - 1
        at = np.zeros(1 << level, int)
        for bit in range(level):
            right = np.arange(1 << level) >> (level - 1 - bit) & 1
            at += 1 + right * ((1 << (depth - bit)) - 1)
        boxes[at] = np.concatenate([low, high], axis=1)
        skips[at] = at + below
        if level == depth:
            leaves[at] = np.arange(1 << level) * _LEAF
        low, high = (
            f(x.reshape(-1, 2, 3), axis=1) if level else x
            for f, x in ((np.min, low), (np.max, high))
        )
    edges = np.concatenate([corners[:, :1], corners[:, 1:] - corners[:, :1]], axis=1)
    return boxes, skips, leaves, edges.reshape(-1, 9), normals.reshape(-1, 9)
