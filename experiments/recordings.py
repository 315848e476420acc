"""Record a policy while it learns, and decode variables from its modules.

`--record-every N` of the training programs writes small recordings (see `record.py`) of the first
seed at every N-th evaluation into RUN/recordings/learning/STEP.zarr, and logs to TensorBoard how
well each variable is decoded from each module, as representation/MODULE/VARIABLE, such as
representation/encoders_vision/truth.ahead.0: R^2 on episodes that were not fitted, or the AUC of a
binary variable.
"""

import functools
import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import analyse, record, recording_reader
from experiments.names import known_names
from experiments.settings import Settings
from vnl_ppo import run_folder
from vnl_ppo.distributed import is_first
from vnl_ppo.env import Env
from vnl_ppo.loading import Policy
from vnl_ppo.networks import ActorCritic
from vnl_ppo.observations import flatten
from vnl_ppo.ppo import TrainingState
from vnl_ppo.train import evaluation_iterations, weights_of

EPISODES = 10
"""Number of episodes of a recording."""
FOLDS = 5
SAMPLES = 1000
"""Maximum number of steps that decoders are fitted to and tested on."""


def check(settings: Settings, env: Env) -> None:
    """Raise a ValueError if a variable of the settings cannot be decoded."""
    if settings.record_every < 0:
        raise ValueError(f"--record-every is {settings.record_every}; it has to be 0 or more")
    known = variables(env)
    for name in settings.record_variables:
        if name not in known:
            raise ValueError(
                f"--record-variables has {name!r}, which cannot be decoded; "
                f"{known_names(name, known)}"
            )


def variables(env: Any) -> list[str]:
    """Return the names of the arrays of a recording in an environment that can be decoded."""
    state = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
    truth = jax.eval_shape(env.truth, state.data) if hasattr(env, "truth") else {}
    velocity = ["truth.velocity"] if "position" in truth and hasattr(env, "dt") else []
    arrays = {
        **{f"truth.{name}": x for name, x in truth.items()},
        **{f"metric.{name}": x for name, x in state.metrics.items()},
        **{f"observation.{name}": x for name, x in flatten(state.obs).items()},
    }
    known = [name for name, x in arrays.items() if 0 < x.size <= recording_reader.MAX_ENTRIES]
    return [*known, *velocity, "action", "value", "reward"]


class Recordings:
    """Records and decodes at evaluations; a `vnl_ppo.train.Hook`.

    Training goes on, with a warning, if a recording fails.

    Args:
        settings: of the run.
        env: the environment.
        network: the network.
        folder: the run's folder.
    """

    def __init__(self, settings: Settings, env: Env, network: ActorCritic, folder: Path) -> None:
        self.settings, self.env, self.network, self.folder = settings, env, network, folder
        self.recorder: record.Recorder | None = None
        per_iteration = settings.ppo.steps_per_iteration
        due = sorted(evaluation_iterations(settings.ppo))[:: settings.record_every]
        self.steps = {iteration * per_iteration for iteration in due}

    def __call__(
        self, step: int, metrics: Mapping[str, float], state: TrainingState
    ) -> dict[str, float] | None:
        """Return how well variables are decoded, by tag; None at other steps."""
        if step not in self.steps or not is_first():
            return None
        try:
            return self.decode(self.write(step, state))
        except (ValueError, OSError) as error:
            print(f"warning: nothing decoded at step {step:,}: {error}", file=sys.stderr)
            return None

    def write(self, step: int, state: TrainingState) -> Path:
        """Write the recording of a step, and return its path."""
        ppo, weights = self.settings.ppo, weights_of(state)
        policy = Policy(self.env, self.network, ppo, weights, step)
        modules = list(policy.modules)
        if self.recorder is None:
            acting = functools.partial(record.actor_of, policy, (), modules)
            self.recorder = record.Recorder(self.env, acting, EPISODES)
        path = self.folder / "recordings" / "learning" / f"{step}.zarr"
        # What this run has left of this very step, before it was resumed.
        for left in (path, path.with_name(path.name + ".part")):
            shutil.rmtree(left, ignore_errors=True)
        about = {
            "policy": f"{self.folder}@{step}",
            "step": step,
            "lesion": "",
            "seed": ppo.seed,
            "commit": run_folder.git_commit() or "unknown",
        }
        self.recorder.write(weights, path, EPISODES, ppo.episode_length, ppo.seed, about)
        return path

    def decode(self, path: Path) -> dict[str, float]:
        """Return the scores of a recording by tag."""
        recording = recording_reader.open_recording(path)
        episode, time = np.nonzero(recording.alive.values)
        steps = recording_reader.spread((episode, time), SAMPLES)
        arrays = self.settings.record_variables or recording_reader.default_variables(recording)[0]
        names, values = recording_reader.variables_of(path, recording, arrays, steps)
        scores = {}
        for module, x in recording_reader.activities_of(path, recording, (), steps).items():
            found = analyse.read(x, names, values, steps, FOLDS)
            for name in names:
                # TensorBoard knows no brackets.
                tag = f"representation/{module}/{name.replace('[', '.').rstrip(']')}"
                scores[tag] = analyse.score_of(found, name)[1]["mean"]
        return {tag: score for tag, score in scores.items() if math.isfinite(score)}
