"""Compute positions and velocities of a walker at the start of an episode."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.interfaces import Pose


def at_rest(
    model: mujoco.MjModel,
    noise: float,
    position_key: jax.Array,
    velocity_key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the model's own posture with noise.

    Args:
        model: a walker in its arena.
        noise: half-width of the uniform noise on positions, and standard deviation of the normal
            noise on velocities, in their units.
        position_key, velocity_key: PRNG keys.

    Returns:
        `qpos` float32[nq], whose quaternions are not normalised, and `qvel` float32[nv].
    """
    qpos = jnp.asarray(model.qpos0, jnp.float32)
    qpos = qpos + jax.random.uniform(position_key, qpos.shape, minval=-noise, maxval=noise)
    return qpos, noise * jax.random.normal(velocity_key, (model.nv,))


def with_free_root(qpos: jax.Array, pose: Pose) -> jax.Array:
    """Return `qpos`, float32[nq], moved and turned to `pose`; its first joint has to be free."""
    turn = about_z(pose.yaw) if pose.rotation is None else pose.rotation
    turned = multiply(turn, qpos[3:7])
    qpos = qpos.at[:3].add(pose.position).at[3:7].set(turned)
    # A unit quaternion.
    return qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))


def about_z(angle: jax.Array) -> jax.Array:
    """Return float32[4], the quaternion (w, x, y, z) of a turn about z by `angle` radians."""
    zero = jnp.zeros(())
    return jnp.stack([jnp.cos(angle / 2), zero, zero, jnp.sin(angle / 2)])


def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return float32[4], the product of two quaternions (w, x, y, z)."""
    w, v, u, t = a[0], a[1:], b[0], b[1:]
    return jnp.concatenate([(w * u - v @ t)[None], w * t + u * v + jnp.cross(v, t)])


Z_TO = (
    np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0]),
    np.array([np.sqrt(0.5), -np.sqrt(0.5), 0, 0]),
    np.array([1.0, 0, 0, 0]),
)
"""Quaternions (w, x, y, z) that turn the z axis into the x, y and z axis."""
