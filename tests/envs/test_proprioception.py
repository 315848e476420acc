"""Compare proprioception with dm_control's own observables on the same states."""

import dataclasses
import functools

import jax
import mujoco
import numpy as np
import pytest
from dm_control import mjcf
from dm_control.locomotion import walkers
from dm_control.locomotion.arenas import floors
from dm_control.locomotion.walkers import cmu_humanoid as dm_humanoid
from dm_control.locomotion.walkers import fruitfly_v2
from dm_control.locomotion.walkers import rodent as dm_rodent

from envs.arenas.floor import Floor
from envs.locomotion import Locomotion
from envs.models import SimulationConfig
from envs.presets import PRESETS
from envs.proprioception import observable
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers import ant, cmu_humanoid, fruit_fly, rodent

STEPS = 80
ANIMALS = {
    "rodent": (PRESETS["rodent_floor"], lambda: dm_rodent.Rat(foot_mods=True), rodent.OBSERVED),
    "humanoid": (
        PRESETS["humanoid_stand"],
        dm_humanoid.CMUHumanoidPositionControlled,
        cmu_humanoid.OBSERVED,
    ),
    "fly": (PRESETS["fly_floor"], fruitfly_v2.FruitFly, fruit_fly.OBSERVED),
    "ant": (
        dataclasses.replace(PRESETS["target_ant"], walker=ant.Ant(proprio="full")),
        walkers.Ant,
        ant.OBSERVED,
    ),
}


@pytest.fixture(scope="module", params=ANIMALS)
def animal(request):
    return Animal(*ANIMALS[request.param])


class Animal:
    """A walker on the floor in this repository and in dm_control, with the same physics."""

    def __init__(self, preset, make, names):
        parts = Floor(), preset.walker, RunThroughCorridor()
        simulation = dataclasses.replace(preset.simulation, compass=False)
        self.env = Locomotion(*parts, simulation=simulation, back_end="mujoco")
        self.names = names
        self.theirs = make()
        arena = floors.Floor(size=(8.0, 8.0))
        self.theirs.create_root_joints(arena.attach(self.theirs))
        option = self.env.model.opt
        arena.mjcf_model.option.set_attributes(
            timestep=option.timestep,
            iterations=option.iterations,
            ls_iterations=option.ls_iterations,
            cone="pyramidal",
            noslip_iterations=0,
        )
        self.dm = mjcf.Physics.from_mjcf_model(arena.mjcf_model)
        assert self.dm.legacy_step

    @functools.cached_property
    def steps(self):
        """Control steps with random actions: state, action, new state."""
        step, rng = jax.jit(self.env.step), np.random.default_rng(0)
        state = jax.tree.map(np.asarray, jax.jit(self.env.reset)(jax.random.key(0)))
        steps = []
        for _ in range(STEPS):
            action = rng.uniform(-1, 1, self.env.action_size).astype(np.float32)
            new = jax.tree.map(np.asarray, step(state, action))
            steps.append((state, action, new))
            state = new
        return steps[::5]

    def observes(self, name):
        """Return dm_control's observation, with its corruptor but not its buffer, float64[n]."""
        theirs = getattr(self.theirs.observables, name)
        value = theirs.observation_callable(self.dm, np.random.RandomState(0))()
        return np.asarray(value, float).reshape(-1)

    def follow(self, before, control):
        """Put dm_control into a state and step as it does.

        Args:
            before: qpos, qvel, act and warm start, float64.
            control: float64[nu].
        """
        data = self.dm.data
        self.dm.reset()
        data.qpos[:], data.qvel[:], data.act[:], data.qacc_warmstart[:] = before
        self.dm.forward()
        data.qacc_warmstart[:] = before[3]
        data.ctrl[:] = control
        self.dm.step(self.env.simulation.num_substeps)


def doubles(env, physics):
    """qpos, qvel, act and warm start of a state, float64."""
    m = env.model
    values = np.ascontiguousarray(physics.bits).view(np.float64)
    return np.split(values[1:], np.cumsum([m.nq, m.nv, m.na]))


def test_each_number_is_dm_controls(animal):
    """dm_control steps as MuJoCo's `legacy_step`: its sensors of velocities are of the new state,
    those of accelerations and forces of the last substep. So are ours of this back end."""
    env, ever = animal.env, {}
    for state, action, new in animal.steps:
        control = np.asarray(env._control(action), np.float64)
        animal.follow(doubles(env, state.data.physics), control)
        np.testing.assert_allclose(animal.dm.data.qpos, new.data.physics.qpos, atol=1e-6)
        ours = new.obs["proprio"]
        for name in animal.names:
            theirs = animal.observes(name)
            mine, ours = np.split(ours, [theirs.size])
            # Of float32; forces and accelerations are large numbers.
            scale = max(1.0, np.abs(theirs).max(initial=0))
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * scale, err_msg=name)
            ever[name] = ever.get(name, theirs.size == 0) | np.any(mine)
        assert not ours.size
    assert all(ever.values()), ever


def test_the_names_are_those_that_dm_controls_corridors_observe(animal):
    own = animal.theirs.observables
    listed = [*own.proprioception, *own.kinematic_sensors, *own.dynamic_sensors]
    named = [getattr(own, name) for name in animal.names]
    missing = [x for x in listed if not any(x is y for y in named)]
    assert not missing
    if not isinstance(animal.theirs, fruitfly_v2.FruitFly):
        assert [id(x) for x in listed] == [id(x) for x in named]


def test_the_number_of_entries_is_the_one_that_the_walker_says(animal):
    size = animal.env.observation_spec["proprio"].shape[0]
    says = type(animal.env.walker).__doc__
    assert f"float32[{size}]" in says


def test_a_users_sensors_come_after_the_walkers_own():
    simulation = dataclasses.replace(PRESETS["rodent_gaps"].simulation, sensors=("walker/torso",))
    parts = Floor(), rodent.Rodent(), RunThroughCorridor()
    plain, asked = (Locomotion(*parts, simulation=s) for s in (SimulationConfig(), simulation))
    state = jax.jit(asked.reset)(jax.random.key(0))
    state = jax.jit(asked.step)(state, np.ones(38, np.float32))
    own = plain.observation_spec["proprio"].shape[0]
    data = mujoco.MjData(asked.model)
    data.qpos[:], data.qvel[:] = state.data.physics.qpos, state.data.physics.qvel
    mujoco.mj_forward(asked.model, data)
    felt = data.sensor("walker/torso").data
    assert np.abs(felt).max() > 1e-3
    np.testing.assert_allclose(state.obs["proprio"][own:], felt, atol=1e-5)


def test_a_walker_with_an_unknown_sensor_is_refused():
    class Odd(rodent.Rodent):
        sensors = ("whisker",)

    with pytest.raises(ValueError, match="the walker's `sensors` has 'walker/whisker'"):
        Locomotion(Floor(), Odd(), RunThroughCorridor())


def test_an_unknown_observable_is_refused():
    env = ANIMALS["rodent"][0].make(seeing=False, back_end="mujoco")
    state = jax.eval_shape(env.reset, jax.random.key(0))
    with pytest.raises(ValueError, match="there is no observable 'smell'; there are joints_pos"):
        jax.eval_shape(
            lambda data: observable(
                env.model,
                env._now(data, env._kinematics(data.physics.qpos), np.zeros(3)),
                env.walker.anatomy,
                "smell",
            ),
            state.data,
        )
