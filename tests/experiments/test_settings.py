"""Settings: typed by their environment, in files and on the command line, of today and of 0.1."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import envs
from experiments import command_line, players
from experiments.command_line import RENAMED, parse
from experiments.evaluate import EvaluateOptions
from experiments.settings import BUILDER, PARTS, build, defaults_for, from_dict, to_dict, type_for
from vnl_ppo import run_folder

RELEASE_0_1 = Path(__file__).parents[1] / "recorded" / "config_0_1.json"


@pytest.mark.parametrize("seeing", [True, False], ids=["seeing", "blind"])
@pytest.mark.parametrize("name", envs.names())
def test_settings_of_every_preset_survive_their_file(name, seeing):
    settings = defaults_for(name, seeing)
    plain = json.loads(json.dumps(to_dict(settings)))
    again = from_dict(plain)
    assert again == settings and type(again) is type_for(name)
    # Each setting of each part is in the file, and has the type that it had.
    for part in PARTS:
        ours = getattr(settings, part)
        assert type(getattr(again, part)) is type(ours)
        assert plain[part].keys() == {field.name for field in dataclasses.fields(ours)}
    # What a file does not say is as the preset has it, not as the type has it.
    assert from_dict({**plain, "arena": {}, "walker": {}, "task": {}}) == settings
    for part in PARTS:
        with pytest.raises(ValueError, match=f"no setting {part}.smell"):
            from_dict({**plain, part: {**plain[part], "smell": 1}})


def test_a_presets_own_values_are_where_a_flag_begins():
    settings = parse(["--env", "stones_ant", "--arena.gap-length", "0.3", "0.4"], None)
    assert settings.arena.gap_length == (0.3, 0.4)
    assert settings.arena.platform_width == defaults_for("stones_ant").arena.platform_width == 2.5
    changed = from_dict({"env": "stones_ant", "arena": {"gap_length": [0.3, 0.4]}})
    assert changed.arena == settings.arena


def test_a_config_of_release_0_1_is_read_under_todays_names():
    settings = from_dict(run_folder.read_settings(RELEASE_0_1), str(RELEASE_0_1))
    assert settings.env == "gap_ant" and type(settings) is type_for("gap_ant")
    flags = """
        --num-timesteps 20000 --num-envs 16 --episode-length 100 --batch-size 16 --num-minibatches 4
        --num-evals 3 --num-eval-envs 4 --encoder none --physics mujoco --video-seconds 0
        --checkpoints.keep-last 0 --vision.camera egocentric
        --arena.platform-length 1.25 1.75 --arena.gap-length 0.3 0.4
        --walker.reach 1.3 --walker.reset-noise 0.02
        --task.forward 4 --task.healthy-height -0.25 1.5
        --simulation.iterations 6 --simulation.sensors walker/torso_gyro
    """
    assert settings == parse(flags.split(), None, "gap_ant")
    # Its builder is still where it says, and makes what it describes.
    module, _, function = run_folder.read_builder(RELEASE_0_1).partition(":")
    env, _, ppo = getattr(importlib.import_module(module), function)(to_dict(settings))
    assert ppo == settings.ppo
    assert (env.arena, env.walker, env.task) == (settings.arena, settings.walker, settings.task)
    assert env.observation_spec["proprio"].shape == (30,)
    # Today's name for a run of a world of Brax's has not changed.
    foreign = from_dict({"env": "brax:ant", "physics": "mjx"})
    assert (foreign.env, foreign.physics) == ("brax:ant", "mjx")
    assert importlib.import_module("experiments.train").build_from


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smell": 1}, "no setting smell"),
        ({"corridor": {"smell": 1}}, "no setting arena.smell"),
        ({"reward": {"smell": 1}}, "no setting task.smell"),
        ({"reset_noise": "much"}, "walker.reset_noise"),
        ({"corridor": 3}, "env.corridor: 3 is not an object with fields"),
        ({"simulation": {"smell": 1}}, "no setting simulation.smell"),
    ],
)
def test_what_release_0_1_did_not_know_is_still_refused(change, message):
    with pytest.raises(ValueError, match=f"mine.json: .*{message}"):
        from_dict({"env": change}, "mine.json")


def test_a_file_without_an_environment_is_of_the_gap_ant_and_keeps_all_it_says():
    settings = from_dict({"arena": {"gap_length": [0.3, 0.4]}, "task": {"forward": 3.0}})
    assert settings.arena.gap_length == (0.3, 0.4)
    assert settings.task.forward == 3.0


def test_a_run_keeps_the_physics_of_the_machine_where_it_began(monkeypatch):
    assert parse(["--physics", "auto"], None, "gap_ant").physics == "mujoco"
    assert parse([], None, "brax:ant").physics == "auto"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    plain = to_dict(parse([], None, "gap_ant"))
    monkeypatch.undo()
    assert plain["physics"] == "mjx" and from_dict(plain).physics == "mjx"


def test_what_a_checkpoint_holds_cannot_be_set_anew(tmp_path):
    adaptive = parse(["--learning-rate-schedule", "adaptive_kl", "--seed", "4"], None, "gap_ant")
    run = run_folder.create(tmp_path / "run", to_dict(adaptive), BUILDER)
    resume = ["--resume", str(run)]
    for flag, value in (("seed", "7"), ("learning-rate", "0.1"), ("init-from", "runs/other")):
        with pytest.raises(ValueError, match=f"--{flag} is .*but a resumed run goes on with its"):
            parse([*resume, f"--{flag}", value], None)
    more = parse([*resume, "--seed", "4", "--num-timesteps", "9"], None)
    assert more.ppo == dataclasses.replace(adaptive.ppo, num_timesteps=9)


FLAGS = {
    "--corridor.reach": (["--corridor.reach", "1.2"], "--walker.reach"),
    "--corridor.": (["--corridor.gap-length", "0.1", "0.3"], "--arena.gap-length"),
    "--reward.": (["--reward.forward=2"], "--task.forward"),
    "--healthy-height": (["--healthy_height", "0", "2"], "--task.healthy-height"),
    "--reset-noise": (["--reset-noise", "0.1"], "--walker.reset-noise"),
    "--gap-length": (["--gap-length", "0.3", "0.5"], "--arena.gap-length"),
    "--platform-length": (["--platform-length", "1.5", "3"], "--arena.platform-length"),
}


@pytest.mark.parametrize("old", RENAMED)
def test_a_renamed_flag_is_refused_with_its_new_name_which_works(old):
    arguments, new = FLAGS[old]
    flag = arguments[0].split("=")[0].replace("_", "-")
    for told in (
        lambda: parse(arguments, None, "gap_ant"),
        lambda: players.parse(EvaluateOptions, ["random", *arguments], None),
    ):
        with pytest.raises(ValueError, match=f"^{flag} is now called {new}$"):
            told()
    first, *rest = arguments
    todays = [new + ("=" + first.split("=")[1] if "=" in first else ""), *rest]
    assert parse(todays, None, "gap_ant") != parse([], None, "gap_ant")
    players.parse(EvaluateOptions, ["random", *todays], None)


MODULE = '''
import jax
import jax.numpy as jnp

from envs.arenas.gaps import Gaps
from envs.presets import Preset
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant
from vnl_ppo.env import State

PRESET = Preset(Gaps(length=20.0), Ant(), RunThroughCorridor(forward=3.0))


class World:
    """An environment of the user's own; its reward is its action."""

    action_size = 2
    observation_spec = {"proprio": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def reset(self, key):
        zero = jnp.zeros(())
        return State(key, {"proprio": jnp.zeros(3)}, zero, zero, {"own": zero}, {})

    def step(self, state, action):
        return state.replace(reward=action[0], metrics={"own": action[1]})


class Sized(World):
    def __init__(self, size):
        self.size = size


ENVIRONMENT = World()
NUMBER = 3


def preset():
    return PRESET


def environment():
    return World()


def number():
    return 3
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The name of a module of the user's own."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "lab_of_settings.py").write_text(MODULE)
    (folder / "lab_that_lacks.py").write_text("import no_such_module_anywhere\n")
    sys.path.insert(0, str(folder))
    yield "lab_of_settings"
    sys.path.remove(str(folder))


@pytest.mark.parametrize("what", ["PRESET", "preset"])
def test_a_preset_of_ones_own_has_typed_settings(own, what):
    name = f"{own}:{what}"
    settings = parse(["--env", name, "--encoder", "none", "--task.forward", "2"], None)
    assert settings.arena.length == 20.0
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings
    env, _ = build(settings)
    assert env.task.forward == 2.0
    assert env.arena.length == 20.0
    # Another part's flag is unknown.
    with pytest.raises(SystemExit):
        parse(["--env", name, "--task.smell", "2"], None)


@pytest.mark.parametrize("what", ["ENVIRONMENT", "environment", "World"])
def test_an_environment_of_ones_own_is_an_object_a_function_or_a_class(own, what):
    name = f"{own}:{what}"
    settings = parse(["--env", name, "--seed", "3"], None)
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings
    assert not hasattr(settings, "arena")
    env, network = build(settings)
    state = env.step(env.reset(jax.random.key(0)), jnp.array([0.5, -0.25]))
    assert (float(state.reward), float(state.metrics["own"])) == (0.5, -0.25)
    assert network.action_size == 2
    with pytest.raises(ValueError, match=f"{name} is not a preset, so arena, ahead cannot be set"):
        envs.make(name, arena=3, ahead=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gap_ent", "there is no environment 'gap_ent'; did you mean gap_ant"),
        ("xyz", r"there is no environment 'xyz'\. There are gap_ant, .*brax:NAME"),
        ("OWN:PRESETS", "OWN has no PRESETS; did you mean PRESET"),
        ("OWN:zzz", "OWN has no zzz$"),
        ("OWN:NUMBER", "of type int; it has to be a preset"),
        ("OWN:number", "makes something of type int; it has to be a preset"),
        ("OWN:Sized", r"needs arguments \(missing a required argument: 'size'\)"),
        ("nowhere_at_all:WORLD", "there is no module 'nowhere_at_all'; name a module"),
        ("lab_that_lacks:WORLD", "there is no module 'no_such_module_anywhere'"),
        ("OWN:", "there is no environment 'OWN:'"),
        (":WORLD", "write a name of your own as package.module:OBJECT"),
        (".lab:WORLD", "write a name of your own as package.module:OBJECT"),
        ("my lab:WORLD", "write a name of your own as package.module:OBJECT"),
        ("brax:", "there is no environment 'brax:'"),
    ],
)
def test_an_unknown_environment_is_refused_in_one_sentence(own, name, message):
    name, message = name.replace("OWN", own), message.replace("OWN", own)
    for told in (
        lambda: parse(["--env", name], None),
        lambda: from_dict({"env": name}),
        lambda: envs.make(name),
        lambda: players.parse(EvaluateOptions, ["random", "--env", name], None),
    ):
        with pytest.raises(ValueError, match=message) as error:
            told()
        assert "\n" not in str(error.value)


def test_hues_of_images_without_colours_are_refused():
    settings = defaults_for("walls_ball", seeing=True)
    gray = dataclasses.replace(settings.vision, modality="gray")
    hue = dataclasses.replace(settings.ppo, image_hue=0.1)
    with pytest.raises(ValueError, match=r"image_hue is 0.1, but vision.modality is gray"):
        build(dataclasses.replace(settings, vision=gray, ppo=hue, frames=3))


def test_without_a_name_the_command_line_asks_for_one():
    with pytest.raises(ValueError, match="name an environment: --env gap_ant"):
        parse([], None)


def test_a_spec_for_each_leaf_is_one_setting_that_a_file_keeps():
    settings = parse(
        ["--encoder", "vision=gray | mlp", "proprio=mlp", "--seed", "3"], None, "gap_ant"
    )
    assert settings.encoder == "vision=gray | mlp, proprio=mlp" and settings.ppo.seed == 3
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings
    assert settings.seeing and not parse(["--encoder=none"], None, "gap_ant").seeing
    # A config.json of before specs had one name.
    assert from_dict({**to_dict(settings), "encoder": "nature_cnn"}).encoder == "nature_cnn"


def test_the_encoders_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--list-encoders"])
    command_line.main(None)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "nature_cnn" in line)
    assert "features=16" in row and "92,336" in row and "Mnih et al. 2015" in row
