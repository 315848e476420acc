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
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress
import tyro

from experiments.frame_files import FrameFiles, collect
from experiments.names import entry_names
from experiments.objectives import OBJECTIVES
from experiments.players import RANDOM, load_policy
from experiments.settings import (
    OF_LEAVES,
    PARTS,
    Settings,
    build,
    defaults_for,
    from_dict,
    settings_of,
    to_dict,
)
from vnl_ppo import checkpoint, encoder_file, run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.env import Env
from vnl_ppo.evaluation import Actor, acting_at_random
from vnl_ppo.interruption import Interrupted, catch_signals
from vnl_ppo.networks import ActorCritic
from vnl_ppo.observations import flatten
from vnl_ppo.reporting import Reporter
from vnl_ppo.runtime import check_jax, keep_compilations
from vnl_ppo.serialization import check_numbers, from_plain, to_plain

FRAMES, ENCODER = "frames", "encoder.safetensors"
_WORLD = (*PARTS, "ahead", "physics", "frames")
"""Settings of the environment that are options here too, where no run brings its own."""
_LOGGED = 10
"""Steps between logs of the training."""
_SHOWN = 6
"""Images in a picture of reconstructions."""
_HELD_OUT = 16
"""Batches of images that are held out in an evaluation."""
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class PretrainOptions:
    """Options of the program."""

    env: str = ""
    """Name of the environment, as for train.py; empty for that of --from."""
    encoder: Annotated[str, OF_LEAVES] = "nature_cnn"
    """The encoder, as for train.py."""
    objective: Literal["autoencoder", "predict", "contrastive", "supervised"] = "autoencoder"
    """Objective: paint the image (autoencoder), paint the next image after the action (predict),
    tell views of one image from those of others (contrastive), or tell other leaves of the
    observation (supervised)."""
    targets: tuple[str, ...] = ()
    """Leaves that supervised has to tell, such as ahead."""
    policy: Annotated[str, tyro.conf.arg(name="from")] = RANDOM
    """RUN or RUN@STEP whose policy acts, and whose environment it is; random for random actions."""
    leaf: str = ""
    """Leaf of the observation; empty for the only image."""
    features: int | None = None
    """Number of features of every encoder that has this setting; None for its own default."""
    images: int = 20_000
    """Number of images to collect."""
    envs: int = 16
    """Number of environments that act at once."""
    steps: int = 10_000
    """Number of gradient steps."""
    batch_size: int = 64
    """Number of images in a batch."""
    learning_rate: float = 3e-4
    """Adam's learning rate."""
    every: int = 500
    """Steps between evaluations on images that are held out, each with a picture."""
    seed: int = 0
    """Random seed, 0 or more."""
    checkpoints: CheckpointConfig = CheckpointConfig()
    quiet: bool = False
    """Print plain lines instead of a live progress bar."""
    run_dir: Path | None = None
    """Folder of the run, which must be new or empty; None for a new folder in runs/."""
    resume: Path | None = None
    """Folder of a run to go on with, with its own settings; only --steps can be changed."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        check_numbers(self)
        for name in ("images", "envs", "steps", "batch_size", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.objective == "contrastive" and self.batch_size < 2:
            raise ValueError("batch_size is 1; contrastive has to tell at least 2 images apart")
        if (self.objective == "supervised") != bool(self.targets):
            raise ValueError(
                f"objective is {self.objective} and targets are {', '.join(self.targets) or 'none'}"
                f"; supervised needs --targets LEAF, and no other objective takes them"
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it has to be 0 or more")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it has to be positive")


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
        ValueError: a setting is invalid, or the folder's files are torn.
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
            raise Interrupted(f"{what}\n{_how_to_go_on(folder)}", signal.SIGINT) from None
    frames = FrameFiles(folder / FRAMES)
    objective = OBJECTIVES[options.objective](network.encoders[leaf])
    training = _Training(objective, options, frames, entries)
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


def _how_to_go_on(folder: Path) -> str:
    return f"go on with: {shlex.join(['python', sys.argv[0], '--resume', str(folder)])}"


def _tracked(blocks: Iterable[_T], quiet: bool) -> Iterable[_T]:
    console = rich.progress.Console()
    disable = quiet or not console.is_terminal
    if disable:
        print("collecting images ...", flush=True)
    return rich.progress.track(blocks, "collecting images", console=console, disable=disable)


class _Training:
    """Gradient steps on batches that depend on the seed and the number of the step alone."""

    def __init__(
        self, objective: Any, options: PretrainOptions, frames: FrameFiles, entries: Sequence[str]
    ) -> None:
        self.options, self.frames, self.entries = options, frames, entries
        optimizer = optax.adam(options.learning_rate)
        self.key = jax.random.key(options.seed)

        def init() -> dict[str, Any]:
            batch = frames.batch((options.seed, 0), options.batch_size)
            params = objective.init(self.key, batch, self.key)["params"]
            return {"params": params, "optimizer": optimizer.init(params)}

        def loss(params: Any, batch: Any, key: jax.Array) -> Any:
            (value, metrics, pairs), sown = objective.apply(
                {"params": params}, batch, key, mutable=["losses"]
            )
            own = sum(map(jnp.sum, jax.tree.leaves(sown)), jnp.zeros(()))
            return value + own, ({"loss": value, **metrics}, pairs)

        def update(state: Any, batch: Any, key: jax.Array) -> Any:
            gradient, (metrics, _) = jax.grad(loss, has_aux=True)(state["params"], batch, key)
            change, own = optimizer.update(gradient, state["optimizer"])
            params = optax.apply_updates(state["params"], change)
            return {"params": params, "optimizer": own}, metrics

        self.init = init
        self.update: Callable[..., Any] = jax.jit(update, donate_argnums=0)
        self.look: Callable[..., Any] = jax.jit(lambda *given: loss(*given)[1])

    def run(self, folder: Path) -> Any:
        """Train to the end, from the newest checkpoint if there is one; return the parameters."""
        options, places = self.options, folder / run_folder.CHECKPOINTS
        warnings: list[str] = []
        saved = checkpoint.read_last(places, warnings.append)
        like = jax.eval_shape(self.init)
        done = 0
        if saved is None:
            state = jax.jit(self.init)()
        else:
            done, leaves = saved
            checkpoint.check(leaves, like, str(places / str(done)))
            checkpoint.set_aside(places, after=done)
            state = jax.tree.map(jnp.asarray, checkpoint.fill(leaves, like))
        purge = None if saved is None else done + 1
        with (
            Reporter(folder, options.steps, done, purge_step=purge, quiet=options.quiet) as report,
            catch_signals(report.line) as signals,
        ):
            for text in warnings:
                report.warning(text)
            if done:
                report.line(f"resuming {folder} at step {done:,}")
            last_saved, start, first = time.monotonic(), time.perf_counter(), done
            while done < options.steps:
                batch = self.frames.batch((options.seed, 1, done), options.batch_size)
                state, metrics = self.update(state, batch, jax.random.fold_in(self.key, done))
                done += 1
                last = done == options.steps or signals.number
                if done % _LOGGED == 0 or last:
                    pace = (done - first) / (time.perf_counter() - start)
                    own = {f"train/{k}": jnp.nanmean(x).item() for k, x in metrics.items()}
                    own["perf/steps_per_second"] = pace
                    report.training(done, own, (options.steps - done) / pace)
                if done % options.every == 0 or last:
                    self._evaluate(state["params"], done, report)
                minutes = (time.monotonic() - last_saved) / 60
                due = options.checkpoints.minutes and minutes > options.checkpoints.minutes
                if due or last:
                    report.flush()
                    checkpoint.save(places, done, state)
                    checkpoint.prune(places, options.checkpoints)
                    last_saved = time.monotonic()
                if signals.number and done < options.steps:
                    raise Interrupted(
                        f"stopped at step {done:,} of {options.steps:,}\n{_how_to_go_on(folder)}",
                        signals.number,
                    )
        return state["params"]

    def _evaluate(self, params: Any, step: int, report: Reporter) -> None:
        """Log metrics and a picture of images that are held out."""
        options, found, pairs = self.options, [], None
        for number in range(_HELD_OUT):
            seed = (options.seed, 2, number)
            batch = self.frames.batch(seed, options.batch_size, held_out=True)
            metrics, pairs = jax.device_get(self.look(params, batch, self.key))
            found.append(metrics)
        # An entry that is the same in a whole batch has no R^2 there. JAX's nanmean does not warn.
        means = {k: jnp.nanmean(jnp.stack([x[k] for x in found]), axis=0) for k in found[0]}
        values = {k: jnp.nanmean(x).item() for k, x in means.items()}
        if self.entries:
            values |= dict(
                zip([f"r2/{k}" for k in self.entries], means["r2"].tolist(), strict=True)
            )
        values = {k: x for k, x in values.items() if np.isfinite(x)}
        report.scalars(step, {f"eval/{k}": x for k, x in values.items()})
        told = "  ".join(f"{k} {x:.4f}" for k, x in values.items())
        report.line(f"{step:>11,} steps  held out: {told}")
        if pairs is None:
            return
        # Above what was to be painted, or one view; below what was painted, or the other.
        channels = 3 if pairs.shape[-1] % 3 == 0 else 1
        rows = [np.concatenate(list(x), 1) for x in np.swapaxes(pairs[:_SHOWN], 0, 1)]
        picture = np.concatenate(rows, 0)[..., -channels:]
        report.image(step, "eval/pairs", np.round(255 * picture).astype(np.uint8))


if __name__ == "__main__":
    main()
