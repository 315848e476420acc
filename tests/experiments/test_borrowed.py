"""Runs that begin with what others learned: `--init-from`, `--encoder-from`, export_encoder.py."""

import dataclasses
import shutil
import sys

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import command_line, export_encoder
from experiments.borrowed import read_borrowed
from experiments.settings import build
from vnl_ppo import borrowing, checkpoint, run_folder
from vnl_ppo.loading import initial_weights, load, read_weights
from vnl_ppo.normalization import init_moments
from vnl_ppo.policy import Weights, init_params
from vnl_ppo.runtime import Compilations
from vnl_ppo.teaching import make_teacher

SMALL = """
    --env tests.probes:SHOWN --num-timesteps 128 --num-envs 8 --unroll-length 4 --batch-size 8
    --num-minibatches 2 --num-updates-per-batch 1 --episode-length 10 --num-evals 2
    --num-eval-envs 2 --network.policy-hidden 4 --network.value-hidden 4 --quiet
    --encoder mlp(hidden_layer_sizes=(5,))
"""

pytestmark = pytest.mark.usefixtures("shared_compilations")


def parsed(folder, *more):
    return command_line.parse([*SMALL.split(), "--run-dir", str(folder), *map(str, more)], None)


def trained(folder, *more):
    settings = parsed(folder, *more)
    command_line.work(settings, command_line.prepare(settings))
    return folder


def weights(run, step=None):
    return read_weights(run, command_line.from_dict(run_folder.read_settings(run)).ppo, step)[1]


@pytest.fixture(scope="module")
def lender(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "lender")


def same(a, b, names):
    return all(a[k].tobytes() == b[k].tobytes() for k in names)


def of_encoder(found):
    return [k for k in found if "encoders_vision" in k]


def test_a_new_run_begins_with_anothers_weights(lender, tmp_path):
    new = trained(tmp_path / "new", "--init-from", lender, "--seed", 5)
    before, first = weights(lender), weights(new, 0)
    assert before.keys() == first.keys() and same(before, first, before)
    assert first["moments.count"] == 128
    assert not same(before, weights(lender, 0), of_encoder(before))
    # What is new is the optimiser.
    leaves = checkpoint.read(new / run_folder.CHECKPOINTS, 0)
    assert all((x == 0).all() for k, x in leaves.items() if k.startswith("optimizer"))
    assert run_folder.read_settings(new)["init_from"] == f"{lender}@128"
    # It may begin with an earlier checkpoint, and the run does not need its lender any more.
    early = command_line.prepare(parsed(tmp_path / "early", "--init-from", f"{lender}@0")).initial
    assert same(early, weights(lender, 0), early)


OTHER = ("--env", "tests.probes:SHOWN_TO_ANOTHER")


def test_another_body_begins_with_what_fits(lender, tmp_path, capsys):
    new = trained(tmp_path / "new", "--init-from", lender, *OTHER)
    told = capsys.readouterr().err.splitlines()
    before, first = weights(lender), weights(new, 0)
    # The eye, the value's later layers, and what the leaf `truth` is like.
    name = "params.params.{}".format
    layers = ("encoders_vision.Dense_0", "value.Dense_1")
    kept = [name(f"{layer}.{array}") for layer in layers for array in ("kernel", "bias")]
    kept += ["moments.mean.truth", "moments.variance.truth"]
    assert same(before, first, kept)
    assert before["moments.count"] == first["moments.count"] == 128 < borrowing.STANDS_FOR
    assert told[0] == f"note: --init-from {lender}@128: 7 arrays fit; new are:"
    assert told[1:] == [
        "  statistics of smell: moments.mean.smell (float32[3]) is missing there, "
        "moments.variance.smell (float32[3]) is missing there",
        "  policy.Dense_0: policy.Dense_0.kernel is float32[7, 4] there and float32[10, 4] here",
        "  policy.Dense_1: policy.Dense_1.bias is float32[2] there and float32[4] here, "
        "policy.Dense_1.kernel is float32[4, 2] there and float32[4, 4] here",
        "  value.Dense_0: value.Dense_0.kernel is float32[7, 4] there and float32[10, 4] here",
    ]
    # A layer is taken whole or not at all: the bias of `policy.Dense_0` would fit.
    bias = name("policy.Dense_0.bias")
    assert before[bias].shape == first[bias].shape and (first[bias] == 0).all()
    # After one iteration of 32 steps each, the new leaf's statistics are on their way.
    assert weights(new)["moments.mean.smell"] == pytest.approx(5 * 128 / 256)


def test_many_observations_do_not_outweigh_those_of_a_new_leaf():
    found = {
        "params.params.value.Dense_0.bias": np.ones(3, np.float32),
        "moments.count": np.float32(1e8),
        "moments.mean.truth": np.ones(2, np.float32),
        "moments.variance.truth": np.ones(2, np.float32),
    }
    nest = lambda flat: {"params": {"params": {"value": {"Dense_0": {"bias": flat}}}}}
    leaf = {"truth": np.zeros(2, np.float32)}
    both = leaf | {"smell": np.zeros(3, np.float32)}
    for leaves, count in ((leaf, 1e8), (both, borrowing.STANDS_FOR)):
        moments = {"count": np.float32(0), "mean": leaves, "variance": leaves}
        like = nest(np.zeros(3, np.float32)) | {"moments": moments}
        taken, _ = borrowing.take_fitting(found, like, "it")
        assert taken["moments.count"] == count and taken.keys() == found.keys()
    like = nest(np.zeros(4, np.float32)) | {"moments": moments}
    with pytest.raises(
        ValueError, match=r"it has no part that fits .*\[3\] there and .*\[4\] here"
    ):
        borrowing.take_fitting(found, like, "it")


def test_from_world_to_world_one_animal_takes_all_it_knows(tmp_path, capsys):
    flags = ["--encoder", "none"]
    here, there = (command_line.parse([*flags, "--env", x], None) for x in ("gap_ant", "walls_ant"))

    def begins(settings, lent, name):
        """Return what a run begins with, and what it tells, if it borrows from another."""
        run, (env, network) = tmp_path / name, build(lent)
        run_folder.create(run, command_line.to_dict(lent))
        first = jax.tree.map(lambda x: x[None], initial_weights(env, network))
        checkpoint.save(run / run_folder.CHECKPOINTS, 0, {"weights": first})
        borrows = dataclasses.replace(settings, init_from=str(run))
        found, initial = read_borrowed(borrows, *build(borrows))
        assert found.init_from == f"{run}@0"
        return set(initial), weights(run), capsys.readouterr().err

    taken, lent, told = begins(there, here, "blind")
    assert taken == set(lent) and told == ""
    told_ahead = lambda settings: dataclasses.replace(
        settings,
        ahead=True,
        network=dataclasses.replace(settings.network, value_leaves=("ahead", "proprio")),
    )
    taken, lent, told = begins(told_ahead(there), told_ahead(here), "told")
    new = {line.split(":")[0].strip() for line in told.splitlines()[1:]}
    assert new == {"statistics of ahead", "value.Dense_0"}
    assert len(set(lent) - taken) == 4


def test_a_borrowed_and_frozen_encoder_stays_what_it_was(lender, tmp_path, capsys):
    file = tmp_path / "eye.safetensors"
    assert export_encoder.export(str(lender), file) == 2
    before, eye = weights(lender), of_encoder(weights(lender))
    from_run = command_line.prepare(parsed(tmp_path / "from_run", "--encoder-from", lender)).initial
    assert len(eye) == 2 and set(from_run) == set(eye) and same(from_run, before, eye)
    more = ("--encoder-from", file, "--network.freeze", "vision", "--seed", 3)
    folder = trained(tmp_path / "from_file", *more)
    assert "the encoder of vision, 2 arrays" in capsys.readouterr().out
    first, last = weights(folder, 0), weights(folder)
    assert same(before, first, eye) and same(before, last, eye)
    policy = [k for k in before if ".policy." in k and k.endswith("kernel")]
    assert not same(before, first, policy) and not same(first, last, policy)
    assert first["moments.count"] == 0
    assert run_folder.read_settings(folder)["encoder_from"] == str(file)

    # To resume it takes nothing but its own folder.
    file.unlink()
    settings = command_line.parse(["--resume", str(folder), "--num-timesteps", "192"], None)
    command_line.work(settings, command_line.prepare(settings))
    assert "only this start has the given ppo.num_timesteps; config.json" in capsys.readouterr().err
    assert checkpoint.steps(folder / run_folder.CHECKPOINTS)[-1] == 192
    assert same(before, weights(folder), eye)
    assert load(folder).step == 192
    # Stopped before its first checkpoint it has to borrow again.
    shutil.rmtree(folder / run_folder.CHECKPOINTS)
    with pytest.raises(ValueError, match="there is no file .*eye.safetensors"):
        command_line.prepare(settings)


def test_values_of_their_own_begin_with_the_policys_encoder(lender, tmp_path):
    options = ("--encoder-from", lender, "--network.no-share-encoders")
    initial = command_line.prepare(parsed(tmp_path / "run", *options)).initial
    own, values = (f"params.params.{k}encoders_vision.Dense_0.kernel" for k in ("", "value_"))
    np.testing.assert_array_equal(initial[own], initial[values])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            ["--init-from", "{lender}", "--network.policy-hidden", "5"],
            "--init-from {lender}@128 does not fit.*policy.Dense_0.bias is float32[4] there and "
            "float32[5] here;.*policy.Dense_1.kernel is float32[4, 2] there and float32[5, 2]",
        ),
        (
            ["--encoder-from", "{lender}", "--encoder", "mlp"],
            "vision.Dense_0.kernel is float32[48, 5] there and float32[48, 64] here.*Dense_1.bias "
            "(float32[64]) is missing there",
        ),
        (["--encoder-from", "{lender}", "--encoder", "flatten"], "nothing to lend"),
        (["--encoder-from", "{lender}@7"], "--encoder-from {lender}@7: .*no checkpoint of step 7"),
        (["--encoder-from", "{lender}@x"], "'x' is no checkpoint's step"),
        (["--init-from", "nowhere"], "--init-from nowhere: there is no run folder nowhere"),
        (["--encoder-from", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        (["--init-from", "{lender}/seed_4"], "has no seed 4"),
        (["--teacher", "nowhere"], "--teacher nowhere: there is no run folder nowhere"),
        (["--teacher", "{lender}@7"], "--teacher {lender}@7: .*no checkpoint of step 7"),
    ],
)
def test_what_cannot_be_borrowed_is_told_before_a_folder_is_made(lender, tmp_path, more, why):
    more = [x.format(lender=lender) for x in more]
    with pytest.raises(ValueError) as raised:
        command_line.prepare(parsed(tmp_path / "run", *more))
    message = str(raised.value)
    place = 0
    for part in why.format(lender=lender).split(".*"):
        place = message.find(part, place)
        assert place >= 0, (part, message)
    assert "\n" not in message and not (tmp_path / "run").exists()


def test_a_teacher_is_named_by_its_step_and_its_weight_falls(lender, tmp_path):
    folder = trained(tmp_path / "run", "--teacher", lender, "--teacher-until", "1")
    assert run_folder.read_settings(folder)["teacher"] == f"{lender}@128"
    events = EventAccumulator(str(folder)).Reload()
    assert [e.value for e in events.Scalars("train/teacher_weight")] == pytest.approx([1, 0.5])
    assert events.Scalars("train/teacher_kl")[0].value > 0


def test_a_program_is_that_of_its_teacher(tmp_path):
    settings = command_line.parse(["--encoder", "none"], None, "gap_ant")
    env, network = build(settings)
    compilations = Compilations(tmp_path)

    def path(seed):
        params = init_params(network, env.observation_spec, jax.random.key(seed))
        weights = Weights(params, init_moments(env.observation_spec))
        teacher = make_teacher(network, weights, env.observation_spec)
        return command_line.kept_programs(settings, env, compilations, teacher).path("step")

    assert path(0) == path(0) != path(1)
    assert command_line.kept_programs(settings, env, compilations).path("step") != path(0)


def test_a_resumed_run_borrows_nothing_new(lender, monkeypatch):
    for flag in ("--init-from", "--encoder-from"):
        with pytest.raises(ValueError, match=f"{flag} is 'x'.*leave it out"):
            command_line.parse(["--resume", str(lender), flag, "x"], None)


def test_export_from_the_command_line(lender, tmp_path, monkeypatch, capsys):
    file = tmp_path / "eye.safetensors"
    arguments = ["export_encoder.py", f"{lender}@0", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    export_encoder.main()
    assert "2 arrays in" in capsys.readouterr().out
    for more, why in [([], "never overwritten"), (["--leaves", "smell"], "never overwritten")]:
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit, match="1"):
            export_encoder.main()
        assert why in capsys.readouterr().err
    file.unlink()
    monkeypatch.setattr(sys, "argv", [*arguments, "--leaves", "smell"])
    with pytest.raises(SystemExit):
        export_encoder.main()
    assert "no encoder for 'smell'; those are for vision" in capsys.readouterr().err
    assert not file.exists()
