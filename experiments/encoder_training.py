"""Train an encoder on images in files, before any reward; see `pretrain_encoder.py`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.frame_files import FrameFiles
from experiments.players import RANDOM
from experiments.settings import OF_LEAVES
from vnl_ppo import checkpoint, run_folder
from vnl_ppo.checkpoint import CheckpointConfig
from vnl_ppo.interruption import Interrupted, catch_signals
from vnl_ppo.reporting import Reporter
from vnl_ppo.serialization import check_numbers

_LOGGED = 10
"""Steps between logs of the training."""
_SHOWN = 6
"""Images in a picture of reconstructions."""
_HELD_OUT = 16
"""Batches of images that are held out in an evaluation."""


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


class EncoderTraining:
    """Takes gradient steps on batches that depend on the seed and the number of the step alone.

    Args:
        objective: a module of `experiments.objectives` around the encoder.
        options: the options of the program.
        frames: the images.
        entries: names of all entries of the targets; empty without targets.
    """

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
            checkpoint.tidy(places, after=done)
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
                        f"stopped at step {done:,} of {options.steps:,}\n{how_to_go_on(folder)}",
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


def how_to_go_on(folder: Path) -> str:
    """Return the sentence with the command that goes on with a run."""
    return f"go on with: {shlex.join(['python', sys.argv[0], '--resume', str(folder)])}"
