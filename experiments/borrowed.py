"""Read what a run takes from others: `--init-from`, `--encoder-from` and `--teacher`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.settings import Settings, build, settings_of
from vnl_ppo import borrowing, checkpoint, encoder_file, run_folder
from vnl_ppo.checkpoint import Leaves
from vnl_ppo.distributed import is_first
from vnl_ppo.env import Env
from vnl_ppo.loading import initial_weights, load_into, read_weights
from vnl_ppo.networks import ActorCritic
from vnl_ppo.observations import flatten
from vnl_ppo.policy import Weights
from vnl_ppo.teaching import Teacher, check_teacher, make_teacher


def read_borrowed(settings: Settings, env: Env, network: ActorCritic) -> tuple[Settings, Leaves]:
    """Read and check the arrays that a new run begins with; nothing is compiled.

    A run that is resumed has borrowed already; it does so again only if it was stopped before its
    first checkpoint.

    Returns:
        the settings, in which RUN has become RUN@STEP; arrays by name (see `vnl_ppo.borrowing`).

    Raises:
        ValueError: there is no such run or file, it cannot be read, or it does not fit the network
            (see `_fitting`); each difference is named.
    """
    if not (settings.init_from or settings.encoder_from):
        return settings, {}
    if settings.resume and checkpoint.steps(settings.resume / run_folder.CHECKPOINTS):
        return settings, {}
    weights = jax.eval_shape(lambda: initial_weights(env, network))
    initial: Leaves = {}
    if name := settings.init_from:
        theirs = _settings_of(name, "--init-from")
        name, found = _of_run(name, "--init-from")
        other_images = _looks_otherwise(theirs, settings)
        initial |= _fitting(found, weights, f"--init-from {name}", other_images)
        settings = dataclasses.replace(settings, init_from=name)
    if name := settings.encoder_from:
        name, found = _encoders(name, env, network, weights)
        initial |= found
        settings = dataclasses.replace(settings, encoder_from=name)
    return settings, initial


def read_teacher(
    settings: Settings, env: Env, network: ActorCritic
) -> tuple[Settings, Teacher | None]:
    """Read and check the policy that a run learns from; nothing is compiled.

    Returns:
        the settings, in which RUN has become RUN@STEP; the teacher, None if none is named.

    Raises:
        ValueError: there is no such run, it cannot be read, or it cannot teach this network.
    """
    if not settings.teacher:
        return settings, None
    source = f"--teacher {settings.teacher}"
    try:
        theirs = settings_of(settings.teacher)
        folder, step = run_folder.split_name(settings.teacher)
        policy = load_into(*build(theirs), theirs.ppo, folder, int(step) if step else None)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    teacher = make_teacher(policy.network, policy.weights, policy.env.observation_spec)
    check_teacher(teacher, network, env.observation_spec, source)
    name = settings.teacher if step else f"{settings.teacher}@{policy.step}"
    return dataclasses.replace(settings, teacher=name), teacher


def _looks_otherwise(theirs: Settings, ours: Settings) -> bool:
    """Whether the images of two runs have other shapes, by their settings."""
    shapes = []
    for settings in (theirs, ours):
        vision = getattr(settings, "vision", None)
        size = vision and (vision.height, vision.width, vision.channels, vision.camera)
        shapes.append((size, settings.frames) if settings.seeing else None)
    return None not in shapes and shapes[0] != shapes[1]


def _fitting(found: Leaves, weights: Weights, source: str, other_images: bool) -> Leaves:
    """Return what a run takes from another with `--init-from`.

    Between runs that observe and do the same it is everything, or an error: they differ by a
    setting of the network that was forgotten. Between others it is what fits, and a line on stderr
    names each part that does not.
    """
    if not (other_images or borrowing.of_another_body(found, weights)):
        borrowing.check_all(found, weights, source)
        return found
    taken, others = borrowing.take_fitting(found, weights, source)
    if is_first():
        print(f"note: {source}: {len(taken)} arrays fit; new are:", file=sys.stderr)
        for line in others:
            print(f"  {line}", file=sys.stderr)
    return taken


def _encoders(name: str, env: Env, network: ActorCritic, weights: Weights) -> tuple[str, Leaves]:
    """Return the name, RUN as RUN@STEP, and the arrays of `--encoder-from`."""
    file = Path(name).expanduser()
    of_file = file.suffix == ".safetensors" and not file.is_dir()
    specs: borrowing.Specs
    if of_file:
        specs = encoder_file.specs_in(file)
    else:
        name, specs = _of_run(name, "--encoder-from")
    source = f"--encoder-from {name}"
    spec = flatten(env.observation_spec)
    images = tuple(leaf for leaf in network.encoders if spec[leaf].dtype == jnp.uint8)
    matched = borrowing.match_encoders(specs, weights, images, source)
    arrays: Any = encoder_file.read(file) if of_file else specs
    found = {own: arrays[there] for own, there in matched.names.items()}
    borrowing.check_finite(found, source)
    if is_first():
        pairs = (a if a == b else f"{a} (its {b})" for a, b in matched.leaves.items())
        print(f"{source}: the encoder of {', '.join(pairs)}, {len(found)} arrays")
    return name, found


def _settings_of(name: str, flag: str) -> Settings:
    """Return the settings of a run that a flag names."""
    try:
        return settings_of(name)
    except ValueError as error:
        raise ValueError(f"{flag} {name}: {error}") from error


def _of_run(name: str, flag: str) -> tuple[str, Leaves]:
    """Return RUN@STEP and the weights of a run."""
    config = _settings_of(name, flag).ppo
    try:
        folder, step = run_folder.split_name(name)
        number, found = read_weights(folder, config, int(step) if step else None)
    except ValueError as error:
        raise ValueError(f"{flag} {name}: {error}") from error
    borrowing.check_finite(found, f"{flag} {name}")
    return name if step else f"{name}@{number}", found
