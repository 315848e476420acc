"""Check that an arena and a task return what an environment is composed of; nothing is compiled."""

import jax
import jax.numpy as jnp
import mujoco

from envs.interfaces import Arena, Outcome, Progress, Task


def checked_outcome(task: Task, outcome: Outcome) -> Outcome:
    """Return a task's `Outcome`; raise a ValueError unless it is one, with single numbers."""
    of = f"{type(task).__name__}.judge"
    if not isinstance(outcome, Outcome):
        raise ValueError(f"{of} returns a {type(outcome).__name__}; it has to be an Outcome")
    fields = ("reward", "failed", "truncated", "success", "passed")
    numbers = {name: getattr(outcome, name) for name in fields} | dict(outcome.metrics)
    for name, x in numbers.items():
        if jnp.shape(x):
            raise ValueError(
                f"{of} returns {name} of shape {list(jnp.shape(x))}; it has to be a single number"
            )
    return outcome


def check_layouts(arena: Arena, task: Task, reach: float, model: mujoco.MjModel) -> None:
    """Raise a ValueError unless the results of an arena and a task have the right shapes."""
    layout = jax.eval_shape(arena.draw, a_key())
    turned = jax.eval_shape(arena.spawn, layout, a_key()).rotation is not None
    if turned and not (model.njnt and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE):
        raise ValueError(
            f"{type(arena).__name__} starts walkers in any orientation, but this one cannot tilt: "
            "its first joint is not free; set arena.spawn_rotation to upright"
        )
    place = lambda layout, key: task.place(task.draw(key), arena.places(layout), key)
    state = jax.eval_shape(place, layout, a_key())
    position = jax.ShapeDtypeStruct((3,), jnp.float32)
    boxes = jax.eval_shape(lambda layout, x: arena.boxes(layout, x, reach), layout, position)
    seen = jax.eval_shape(arena.visible, layout).geoms
    things = jax.eval_shape(task.visible, state)
    root = arena.build()
    progress = jax.eval_shape(arena.progress, layout, position)
    for part, name, found, places in (
        (arena, "boxes", boxes, len(arena.slots(root))),
        (arena, "visible", seen, len(arena.visible_geoms(root))),
        (task, "visible", things, len(task.visible_geoms(root))),
    ):
        of = type(part).__name__
        where = "slots" if name == "boxes" else "visible_geoms"
        for field in ("position", "size"):
            shape = getattr(found, field).shape if found is not None else (0, 3)
            if shape != (places, 3):
                raise ValueError(
                    f"{of}.{name} has {field} of shape {list(shape)}, but {of}.{where} names "
                    f"{places} geoms: it has to be [{places}, 3]"
                )
    told = jax.eval_shape(arena.ahead, layout, position)
    if len(told.shape) != 1:
        raise ValueError(
            f"{type(arena).__name__}.ahead returns shape {list(told.shape)}; it has to be a vector"
        )
    if not isinstance(progress, Progress):
        raise ValueError(f"{type(arena).__name__}.progress has to return a Progress")


def a_key() -> jax.Array:
    """Return the shape and dtype of a typed PRNG key, for `jax.eval_shape`."""
    return jax.eval_shape(lambda: jax.random.key(0))
