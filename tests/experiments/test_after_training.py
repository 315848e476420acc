"""Test what is done with a run afterwards: load, evaluate, film, watch."""

import contextlib
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import vnl_ppo
from experiments import evaluate, players, render, watch
from experiments.command_line import parse
from experiments.settings import BUILDER, build, defaults_for, from_dict, to_dict
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.intervals import interval
from vnl_ppo.ppo import make_policy, make_ppo
from vnl_ppo.recurrence import initial_memory
from vnl_ppo.train import weights_of

N = 3
STEPS = 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A blind run as it stands before its first iteration, with two checkpoints."""
    options = "--encoder none --num-envs 2 --physics mujoco"
    settings = parse(options.split(), None, "gap_ant")
    env, network = build(settings)
    folder = tmp_path_factory.mktemp("runs") / "mine"
    run_folder.create(folder, to_dict(settings), BUILDER)
    state = make_ppo(env, network, settings.ppo).init(0)
    checkpoint.save(folder / run_folder.CHECKPOINTS, 0, state)
    other = jax.tree.map(lambda x: x + 0.01, state.weights.params)
    state = state.replace(weights=state.weights.replace(params=other))
    checkpoint.save(folder / run_folder.CHECKPOINTS, 5120, state)
    return folder, env, network, weights_of(state)


def test_a_policy_is_loaded_in_three_lines(trained):
    folder, env, network, weights = trained
    policy = vnl_ppo.load(folder)
    obs = {"proprio": jax.random.normal(jax.random.key(1), (5, 27))}
    act, judge = make_policy(network, weights, deterministic=True)
    np.testing.assert_allclose(policy(obs), act(obs, jax.random.key(0))[0], atol=1e-6)
    np.testing.assert_allclose(policy.value(obs), judge(obs), rtol=1e-5)
    single = policy({"proprio": obs["proprio"][2]})
    np.testing.assert_allclose(single, policy(obs)[2], atol=1e-5)
    samples = [policy(obs, jax.random.key(i)) for i in range(2)]
    assert (samples[0] != samples[1]).all()
    assert policy.step == 5120
    assert policy.env.observation_spec == env.observation_spec
    assert vnl_ppo.load(folder, step=0).step == 0
    with pytest.raises(ValueError, match=r"leaves \['smell'\]; this policy was trained on"):
        policy({"smell": obs["proprio"]})


def test_a_policy_with_memory_carries_it(tmp_path):
    options = "--encoder none --network.memory 5 --num-envs 2 --physics mujoco"
    settings = parse(options.split(), None, "gap_ant")
    env, network = build(settings)
    folder = run_folder.create(tmp_path / "mine", to_dict(settings), BUILDER)
    state = make_ppo(env, network, settings.ppo).init(0)
    checkpoint.save(folder / run_folder.CHECKPOINTS, 0, state)
    policy = vnl_ppo.load(folder)
    act = make_policy(network, weights_of(state), deterministic=True)[0]

    obs = {"proprio": jax.random.normal(jax.random.key(1), (4, 3, 27))}
    steps = [{"proprio": x} for x in obs["proprio"]]
    memory, wanted = None, initial_memory(network, 3)
    for step in steps:
        expected, decision = act(step, jax.random.key(0), wanted)
        value = policy.value(step, memory)
        action, memory = policy.act(step, memory)
        np.testing.assert_allclose(action, expected, atol=1e-6)
        np.testing.assert_allclose(value, decision.value, rtol=1e-4, atol=1e-6)
        wanted = decision.memory
    # What was seen before makes a difference; a single ant is one of a batch; and so are
    # axes of any number.
    assert (policy.act(steps[-1])[0] != action).any()
    single, one = policy.act({"proprio": obs["proprio"][0, 1]})
    np.testing.assert_allclose(single, policy.act(steps[0])[0][1], atol=1e-6)
    assert policy.act(obs)[0].shape == (4, 3, env.action_size)
    assert jax.tree.leaves(one)[0].shape == (5,)
    samples = [policy.act(steps[0], key=jax.random.key(i))[0] for i in range(2)]
    assert (samples[0] != samples[1]).all()
    with pytest.raises(ValueError, match="has a memory.*policy.act"):
        policy(steps[0])


def test_what_cannot_be_loaded_is_named(trained, tmp_path):
    folder, _, _, _ = trained
    with pytest.raises(ValueError, match="no checkpoint of step 7; it has 0, 5120"):
        vnl_ppo.load(folder, step=7)
    with pytest.raises(ValueError, match="there is no run folder"):
        vnl_ppo.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="names no builder"):
        vnl_ppo.load(run_folder.create(tmp_path / "early", {}))
    with pytest.raises(ValueError, match="built by my_lab.eyes:build, which cannot be found"):
        vnl_ppo.load(run_folder.create(tmp_path / "lost", {}, "my_lab.eyes:build"))
    settings = run_folder.read_settings(folder)
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        vnl_ppo.load(run_folder.create(tmp_path / "new", settings, BUILDER))


def test_code_that_a_run_names_is_told_before_it_runs(trained, tmp_path, monkeypatch, capsys):
    folder, env, network, _ = trained
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted_builder.py").write_text("import sys; print('ran', file=sys.stderr)")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    name = "planted_builder:build"
    (other / "config.json").write_text(json.dumps({**config, "builder": name}))
    # With a builder of one's own nothing of it is imported.
    own = lambda settings: (env, network, from_dict(settings).ppo)
    assert vnl_ppo.load(other, builder=own).step == 5120
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="built by planted_builder:build, which cannot be found"):
        vnl_ppo.load(other)
    note = f"note: {other} names code that is imported now: {name}"
    assert capsys.readouterr().err.splitlines() == [note, "ran"]


@pytest.mark.parametrize(
    "named", [{"env": "planted_world:ENV"}, {"encoder": "gray | planted_world:Eye(width=3)"}]
)
def test_settings_that_name_code_are_told_before_it_runs(named, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "_told", set())
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with contextlib.suppress(ValueError):
            from_dict({"env": "gap_ant", **named}, "theirs.json")
    code = named.get("env", "planted_world:Eye")
    told = f"note: theirs.json names code that is imported now: {code}\n"
    assert capsys.readouterr().err == told


def test_random_acts_where_a_network_names_what_only_the_seeing_observe():
    seeing = defaults_for("walls_ball")
    critic = dataclasses.replace(seeing.network, value_leaves=("proprio", "vision"))
    (player,) = players.load_players(("random",), dataclasses.replace(seeing, network=critic))
    assert list(player.env.observation_spec) == ["proprio"]


@pytest.fixture(scope="module")
def evaluated(trained):
    name = str(trained[0])
    world = players.settings_of(name)
    both = players.load_players((name, "random"), world)
    return both, [evaluate.evaluate(p, N, STEPS, seed=4) for p in both], world


def test_every_policy_runs_in_the_same_corridors(evaluated):
    both, _, _ = evaluated
    keys = jax.random.split(jax.random.key(0), 2)
    layouts = [
        jax.jit(jax.vmap(lambda key, env=p.env: env.reset(key).data.layout.starts))(keys)
        for p in both
    ]
    np.testing.assert_array_equal(*layouts)
    assert (layouts[0][0] != layouts[0][1]).any()


def test_an_evaluation_has_each_episode(evaluated):
    both, found, _ = evaluated
    for player, metrics in zip(both, found, strict=True):
        assert set(player.shown) <= set(metrics)
        assert all(metrics[k].shape == (N,) for k in player.shown)
        assert (metrics["episode_length"] == STEPS).all()
        # The ant starts at 5 m.
        distance = metrics["distance_along_x"]
        np.testing.assert_allclose(distance, metrics["x_position"] - 5, atol=1e-5)
        assert (np.abs(distance) < 1).all()
    assert (found[0]["episode_reward"] != found[1]["episode_reward"]).all()


def test_the_interval_is_students():
    # Mean 3, deviation sqrt(2.5), t_(0.975, 4) = 2.776.
    mean, half = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32))
    assert (mean, half) == (3.0, pytest.approx(2.7764 * (2.5 / 5) ** 0.5, abs=1e-3))
    luck = np.random.RandomState(0)
    intervals = [interval(luck.normal(1.0, 2.0, 6)) for _ in range(1000)]
    assert 0.93 < np.mean([abs(m - 1.0) < h for m, h in intervals]) < 0.97


def test_the_table_and_the_json_say_the_same(evaluated):
    both, found, world = evaluated
    both = [p._replace(name=name) for p, name in zip(both, "ab", strict=True)]
    content = json.loads(json.dumps(evaluate.as_json(both, found, world, 4)))
    mean = content["policies"][1]["episode_reward"]["mean"]
    assert mean == pytest.approx(np.mean(found[1]["episode_reward"]))
    assert content["world"]["arena"]["gap_length"] == [0.05, 0.2]
    assert (content["world"]["env"], content["seed"]) == ("gap_ant", 4)
    shown = evaluate.table(both, found, N, STEPS)
    assert [c.header for c in shown.columns] == ["", "a", "b", "b - a"]
    assert next(iter(shown.columns[2].cells)).startswith(f"{mean:.2f} ± ")


def run_main(monkeypatch, module, arguments):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    module.main()


def test_two_policies_are_filmed_beside_each_other(trained, tmp_path, monkeypatch, capsys):
    folder = trained[0]
    path = tmp_path / "race.gif"
    small = ["--size", 32, 48, "--inset", 0, "--seconds", 0.25, "--camera", 0, "--seed", 2]
    run_main(monkeypatch, render, [folder, "random", *small, "--output", path])
    assert str(path) in capsys.readouterr().out
    frames = imageio.mimread(path)
    # 0.25 s are 10 control steps: 11 states, of which every second one is a frame of 50 ms.
    assert len(frames) == 6
    first, last = (np.asarray(f)[..., :3].astype(int) for f in (frames[0], frames[-1]))
    assert first.shape == (32, 96, 3)
    # The same corridor and start; then each goes its own way.
    assert np.abs(first[:, :48] - first[:, 48:]).mean() < 3
    assert np.abs(last[:, :48] - last[:, 48:]).mean() > np.abs(first[:, :48] - first[:, 48:]).mean()


class Window:
    """A viewer without a window: open for a number of frames."""

    def __init__(self, model, data, frames=4):
        self.model, self.data, self.frames, self.seen = model, data, frames, []
        self.cam = mujoco.MjvCamera()

    def is_running(self):
        return len(self.seen) < self.frames

    def sync(self):
        self.seen.append((self.data.qpos.copy(), self.data.time))


def test_the_viewer_shows_the_states_in_the_whole_corridor(evaluated):
    player = evaluated[0][1]
    windows = []

    @contextlib.contextmanager
    def opener(model, data):
        windows.append(Window(model, data))
        yield windows[0]

    watch.show(player, seed=3, speed=100.0, opener=opener)
    window = windows[0]
    state = jax.jit(player.env.reset)(jax.random.key(3))
    np.testing.assert_allclose(window.seen[0][0], state.data.physics.qpos, atol=1e-6)
    assert [t for _, t in window.seen] == pytest.approx([0, 0.025, 0.05, 0.075])
    assert (window.seen[1][0] != window.seen[0][0]).any()
    assert window.model.body(window.cam.trackbodyid).name == "walker/torso"
    platforms = int(jnp.sum(state.data.layout.starts < 1e4))
    named = [window.model.geom(i).name for i in range(window.model.ngeom)]
    assert sum("floor" in name for name in named) == platforms


def test_without_a_display_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SystemExit, match="no display here.*render.py"):
        run_main(monkeypatch, watch, ["random"])


@pytest.mark.parametrize(
    "module, arguments, message",
    [
        (evaluate, ["nowhere"], "there is no run folder nowhere"),
        (evaluate, ["random", "--episodes", "1"], "--episodes is 1"),
        (evaluate, ["random", "--seed", "-1"], "--seed is -1"),
        (evaluate, ["random", "--arena.gap-length", "3", "1"], r"gap_length is \(3.0, 1.0\)"),
        (evaluate, ["RUN@x"], "'x' is no checkpoint's step"),
        (evaluate, ["RUN@9"], "no checkpoint of step 9; it has 0, 5120"),
        (render, ["RUN", "random", "random"], "3 policies"),
        (render, ["RUN", "--camera", "nose"], "no camera 'nose'"),
        (render, ["RUN", "--camera", "9"], "--camera is 9; there are 0 "),
        (render, ["RUN", "--output", "film.avi"], "end in .mp4 or .gif"),
        (
            render,
            ["RUN", "--output", "RUN/config.json.gif", "--size", "30", "40"],
            "multiples of 16",
        ),
        (render, ["random", "--speed", "0"], "--speed is 0.0"),
        (render, ["random", "--inset", "460"], "--inset is 460"),
    ],
)
def test_bad_input_is_one_sentence(trained, monkeypatch, module, arguments, message):
    folder = str(trained[0])
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run_main(monkeypatch, module, [a.replace("RUN", folder) for a in arguments])


def test_a_checkpoint_is_named_behind_the_runs_own_name():
    assert players.split_name("runs/mine") == (Path("runs/mine"), "")
    assert players.split_name("runs/mine@300") == (Path("runs/mine"), "300")
    assert players.split_name("me@lab/mine") == (Path("me@lab/mine"), "")
    assert players.split_name("me@lab/mine@300") == (Path("me@lab/mine"), "300")
