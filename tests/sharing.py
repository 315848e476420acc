"""A program for tests of training on several devices, which XLA is made to simulate, or in several
processes.

    python -m tests.sharing devices OUT.npz
    python -m tests.sharing train RUN STEPS [COORDINATOR NUM_PROCESSES PROCESS_ID]
    python -m tests.sharing stop RUN STEPS COORDINATOR NUM_PROCESSES PROCESS_ID
    python -m tests.sharing borrow RUN STEPS OTHER_RUN [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.probes import Pixels, Probe, Recall, Senses
from vnl_ppo import checkpoint, distributed, run_folder
from vnl_ppo.config import PPOConfig
from vnl_ppo.interruption import Interrupted
from vnl_ppo.loading import read_weights
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.train import StopTraining, train

CONFIG = PPOConfig(
    num_envs=8,
    unroll_length=4,
    batch_size=8,
    num_minibatches=2,
    num_updates_per_batch=2,
    episode_length=10,
    learning_rate=1e-3,
    num_eval_envs=4,
)
ITERATIONS = 4


CASES = {
    # Two leaves are images, which are shifted at random; environments come in chunks.
    "seeing": (
        Senses(),
        ActorCritic(1, {"eye_left": Pixels(), "eye_right": Pixels()}, (8,), (8,)),
        dataclasses.replace(CONFIG, image_shift=1, env_chunk_size=2),
    ),
    # Minibatches of unrolls; two agents at once; adaptive learning rate and a limit of the KL;
    # predictions in advance, of which each device knows another number.
    "remembering": (
        Recall(),
        ActorCritic(
            1, {}, (8,), (8,), core=GRU(8), state_dependent_std=False,
            predict_leaves=("cue",), predict_horizon=2,
        ),
        dataclasses.replace(
            CONFIG, num_seeds=2, learning_rate_schedule="adaptive_kl", max_kl=1.0, num_envs=16,
            batch_size=16,
        ),
    ),
}  # fmt: skip


def on_devices(case, num_devices):
    """The state and the metrics after `ITERATIONS` on `num_devices`."""
    ppo = make_ppo(*CASES[case], jax.devices()[:num_devices])
    state = ppo.init(0)
    for _ in range(ITERATIONS):
        state, metrics = ppo.step(state)
    return ppo, state, metrics


def leaves_of(tree):
    """Arrays by name, typed keys as numbers."""
    raw = lambda x: (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    named = jax.tree_util.tree_leaves_with_path(jax.tree.map(raw, tree))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in named}


def devices(out):
    """Each case on one device and on more; a checkpoint of four resumed on four and on one."""
    found = {}
    for case, numbers in {"seeing": (4, 1), "remembering": (2, 1)}.items():
        for n in numbers:
            ppo, state, metrics = on_devices(case, n)
            found |= {f"{case}/{n}/{k}": x for k, x in leaves_of((state, metrics)).items()}
            if case == "seeing":
                folder = Path(out).with_suffix(".checkpoints")
                if n == 4:
                    checkpoint.save(folder, 1, state)
                    state, _ = ppo.step(state)
                    found |= {f"unbroken/{k}": x for k, x in leaves_of(state).items()}
                saved = checkpoint.read(folder, 1)
                like = jax.eval_shape(ppo.init, 0)
                checkpoint.check(saved, like, "1")
                state, _ = ppo.step(checkpoint.restore(saved, like, ppo.layout))
                found |= {f"resumed/{n}/{k}": x for k, x in leaves_of(state).items()}
    np.savez(out, **found)


def training(folder, steps, *others, on_iteration=None, borrowed=None):
    """A whole run of a probe, alone or as one of several processes; resumed if it exists, or begun
    with the weights of another."""
    if others:
        coordinator, num_processes, process_id = others
        distributed.join(
            distributed.DistributedConfig(coordinator, int(num_processes), int(process_id), 60)
        )
    folder = Path(folder)
    resume = (folder / run_folder.CONFIG).exists()
    distributed.check_same("folders", str(resume))
    config = dataclasses.replace(CONFIG, num_timesteps=int(steps), num_evals=2, image_shift=1)
    try:
        if not resume and distributed.is_first():
            run_folder.create(folder, {})
        network = ActorCritic(1, {"vision": Pixels()}, (8,), (8,))
        env = Probe(lambda x, a: -jnp.square(a - 0.5 * x), steps=7, picture=True)
        initial = read_weights(Path(borrowed), config)[1] if borrowed else None
        train(env, network, config, folder, resume, on_iteration=on_iteration, initial=initial)
    except (distributed.PeerLostError, Interrupted, OSError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        distributed.leave(getattr(error, "status", 1))
        sys.exit(getattr(error, "status", 1))


def stopping(folder, steps, *others):
    """Train as `training`, but the hook of the last process stops the run after two iterations."""

    def hook(step, metrics, state):
        if jax.process_index() == 1 and step == 2 * CONFIG.steps_per_iteration:
            raise StopTraining("enough")

    training(folder, steps, *others, on_iteration=hook)


def borrowing(folder, steps, other, *others):
    """Train as `training`, from the weights of another run."""
    training(folder, steps, *others, borrowed=other)


if __name__ == "__main__":
    what = {"devices": devices, "train": training, "stop": stopping, "borrow": borrowing}
    what[sys.argv[1]](*sys.argv[2:])
