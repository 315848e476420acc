"""Teach an encoder from images, before any reward; write it to a file for `--encoder-from`.

    python experiments/pretrain_encoder.py --env walls_ant --encoder impala --objective autoencoder
    python experiments/pretrain_encoder.py --from runs/mine --objective predict    # its policy acts
    python experiments/pretrain_encoder.py --env walls_ball --ahead --objective supervised \\
        --targets ahead
    python experiments/pretrain_encoder.py --resume runs/walls_ant_autoencoder-20260101-120000
    python experiments/train.py --env walls_ant --encoder impala --network.freeze vision \\
        --encoder-from runs/walls_ant_autoencoder-20260101-120000/encoder.safetensors

The run's folder holds frames/ (the images, as bytes), checkpoints/, TensorBoard's events, and, at
the end, encoder.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
import tyro

from experiments.encoder_training import EncoderTraining, PretrainOptions, how_to_go_on
from experiments.frame_files import FrameFiles, collect
from experiments.names import entry_names
from experiments.objectives import OBJECTIVES
from experiments.players import RANDOM, load_policy
from experiments.settings import (
    PARTS,
    Settings,
    build,
    defaults_for,
    from_dict,
    settings_of,
    to_dict,
)
from vnl_ppo import checkpoint, encoder_file, run_folder
from vnl_ppo.env import Env
from vnl_ppo.evaluation import Actor, acting_at_random
from vnl_ppo.interruption import Interrupted
from vnl_ppo.networks import ActorCritic
from vnl_ppo.observations import flatten
from vnl_ppo.runtime import check_jax, keep_compilations
from vnl_ppo.serialization import from_plain, to_plain

FRAMES, ENCODER = "frames", "encoder.safetensors"
_WORLD = (*PARTS, "ahead", "physics", "frames")
"""Settings of the environment that are options here too, where no run brings its own."""
_T = TypeVar("_T")
_OF_THE_COMMAND = ("quiet", "run_dir", "resume")


def main() -> None:
    """Pretrain as the command line says, or print an error as one sentence."""
    try:
        options, world = parse(sys.argv[1:])
        keep_compilations()
        print(f"encoder: {pretrain(options, world)}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(interrupted.status)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(arguments: Sequence[str]) -> tuple[PretrainOptions, Settings]:
    """Return the options, and the settings of the environment and the encoder.

    Raises:
        ValueError: an option is invalid, or there is no such run or environment.
    """
    check_jax()
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--env", "--from", "--resume"):
        flags.add_argument(flag, default="", dest=flag.removeprefix("--").replace("from", "policy"))
    first = flags.parse_known_args(arguments)[0]
    begin, world = PretrainOptions(), Settings()
    of_command = first.policy in ("", RANDOM) and not first.resume
    if first.resume:
        folder = Path(first.resume).expanduser()
        content = run_folder.read_settings(folder)
        if not {"pretrain", "world"} <= set(content):
            raise ValueError(f"{folder} is no run of pretrain_encoder.py; resume it with train.py")
        begin = from_plain(PretrainOptions, content["pretrain"], str(folder))
        world = from_dict(content["world"], str(folder))
    elif not of_command:
        world = settings_of(first.policy)
        if first.env not in ("", world.env):
            raise ValueError(
                f"--env is {first.env}, but {first.policy} is of {world.env}; leave --env out"
            )
    elif first.env:
        world = defaults_for(first.env)
    elif not {"-h", "--help"} & set(arguments):
        raise ValueError("name an environment or a run: --env walls_ant, --from runs/mine, ...")
    names = [name for name in _WORLD if of_command and hasattr(world, name)]
    kind = dataclasses.make_dataclass(
        "PretrainOptions",
        [(n, type(getattr(world, n)), dataclasses.field(default=getattr(world, n))) for n in names],
        bases=(PretrainOptions,),
        frozen=True,
    )
    default = kind(**_own(begin), **{n: getattr(world, n) for n in names})
    given: Any = tyro.cli(kind, args=arguments, default=default, description=__doc__)
    options = PretrainOptions(**_own(given))
    paths = {n: x.expanduser() for n in ("run_dir", "resume") if (x := getattr(options, n))}
    options = dataclasses.replace(options, **paths)
    options.check()
    if first.resume:
        changed = [
            n
            for n, x in _own(options).items()
            if x != getattr(begin, n) and n not in (*_OF_THE_COMMAND, "steps")
        ]
        if changed:
            raise ValueError(
                f"--{changed[0].replace('_', '-')} is changed, but a resumed run goes on with its "
                f"own settings; leave it out, or begin a run without --resume"
            )
        return options, world
    changes = {n: getattr(given, n) for n in names}
    changes |= {"encoder": options.encoder, "features": options.features}
    return options, dataclasses.replace(world, **changes)


def _own(options: PretrainOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(PretrainOptions)}


def pretrain(options: PretrainOptions, world: Settings) -> Path:
    """Collect images, train the encoder on them, and write it to a file.

    A resumed run ends with the same parameters as an uninterrupted one, bit for bit.

    Args:
        options: the options, which passed `check`.
        world: settings of the environment and the encoder.

    Returns:
        the path of the encoder's file.

    Raises:
        ValueError: a setting is invalid, the folder's files are torn, or another process trains
            there.
        OSError: a file cannot be written.
        Interrupted: a signal came; a checkpoint is saved.
    """
    env, network = build(world)
    leaf = _leaf(options, env, network)
    entries = _entries(options, env)
    actor = acting_at_random(env.action_size)
    if options.policy != RANDOM and not (options.resume and (options.resume / FRAMES).is_dir()):
        actor = _actor(options.policy)
    folder = _folder(options, world)
    with run_folder.alone_in(folder):
        output = folder / ENCODER
        if output.exists():
            raise ValueError(f"{output} exists: the run is complete; begin another to train longer")
        if not (folder / FRAMES).exists():
            try:
                collect(
                    env, actor, leaf, folder / FRAMES, options.images, options.envs,
                    world.ppo.episode_length, options.seed, partial(_tracked, quiet=options.quiet),
                    options.targets,
                )  # fmt: skip
            except KeyboardInterrupt:
                what = "stopped while images were collected, which will begin again"
                raise Interrupted(f"{what}\n{how_to_go_on(folder)}", signal.SIGINT) from None
        frames = FrameFiles(folder / FRAMES)
        objective = OBJECTIVES[options.objective](network.encoders[leaf], world.modality == "rgb")
        training = EncoderTraining(objective, options, frames, entries)
        params = training.run(folder)
        arrays = {
            f"{leaf}/{name.replace('.', '/')}": np.asarray(x)
            for name, x in checkpoint.named_leaves(params["encoder"]).items()
        }
        about = {"objective": options.objective, "env": world.env, "encoder": world.encoder}
        encoder_file.write(output, arrays, about)
    return output


def _actor(name: str) -> Actor:
    """Return the policy of a run, which samples its actions."""
    settings = settings_of(name)
    if not settings.seeing:
        raise ValueError(f"{name} is of a blind animal; name a run that sees, or random")
    return load_policy(name, settings).actor(deterministic=False)


def _leaf(options: PretrainOptions, env: Env, network: ActorCritic) -> str:
    """Return the image whose encoder is trained; raise a ValueError if it is not clear."""
    spec = flatten(env.observation_spec)
    images = [leaf for leaf in network.encoders if spec[leaf].dtype == jnp.uint8]
    known = f"images with an encoder are {', '.join(images) or 'none'}"
    if options.leaf not in ("", *images):
        raise ValueError(f"--leaf is {options.leaf!r}; {known}")
    if not options.leaf and len(images) != 1:
        raise ValueError(f"it is not clear which image is meant: {known}; name one with --leaf")
    leaf = options.leaf or images[0]
    x = jax.ShapeDtypeStruct((1, *spec[leaf].shape), spec[leaf].dtype)
    params = jax.eval_shape(network.encoders[leaf].init, jax.random.key(0), x)
    if not jax.tree.leaves(params):
        raise ValueError(f"the encoder {options.encoder!r} has no parameters to train")
    return leaf


def _entries(options: PretrainOptions, env: Env) -> list[str]:
    """Return names of all entries of the targets; raise a ValueError if one is no vector."""
    spec = flatten(env.observation_spec)
    vectors = [k for k, x in spec.items() if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim == 1]
    for name in options.targets:
        if name not in vectors:
            raise ValueError(
                f"--targets has {name!r}; leaves that are vectors are {', '.join(vectors)}"
                + ("; --ahead adds ahead" if name == "ahead" else "")
            )
    attributes = getattr(env, "truth_attributes", {})
    return [
        f"{leaf}/{name}"
        for leaf in options.targets
        for name in entry_names(attributes.get(leaf, {}).get("entries", ()), spec[leaf].shape[0])
    ]


def _folder(options: PretrainOptions, world: Settings) -> Path:
    """Return the run's folder, and make that of a new run."""
    if options.resume:
        return options.resume
    settings = {
        "pretrain": {k: x for k, x in to_plain(options).items() if k not in _OF_THE_COMMAND},
        "world": to_dict(world),
    }
    name = f"{world.env.replace(':', '_')}_{options.objective}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = options.run_dir or run_folder.make_unused(Path("runs") / name)
    return run_folder.create(folder, settings)


def _tracked(blocks: Iterable[_T], quiet: bool) -> Iterable[_T]:
    console = rich.progress.Console()
    disable = quiet or not console.is_terminal
    if disable:
        print("collecting images ...", flush=True)
    return rich.progress.track(blocks, "collecting images", console=console, disable=disable)


if __name__ == "__main__":
    main()
