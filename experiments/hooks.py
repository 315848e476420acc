"""Make the hook of a training from its settings: recordings (--record-every), an end (--until)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.settings import Settings
from vnl_ppo.env import Env
from vnl_ppo.networks import ActorCritic
from vnl_ppo.train import Hook, StopTraining


def check_hooks(settings: Settings, env: Env) -> None:
    """Raise a ValueError if a setting of a hook is invalid."""
    if settings.record_every:
        # Imported late, as below: it needs the extra `analysis`.
        from experiments import recordings

        recordings.check(settings, env)
    if settings.until:
        # Imported late, as below: it takes TensorBoard, which takes a second.
        from experiments.until import read_goal

        read_goal(settings.until, env)


def hook_of(settings: Settings, env: Env, network: ActorCritic, folder: Path) -> Hook | None:
    """Return the hook that records while the policy learns, or ends the training, if the settings
    ask for it."""
    hooks: list[Hook] = []
    if settings.record_every:
        from experiments.recordings import Recordings

        hooks.append(Recordings(settings, env, network, folder))
    if settings.until:
        from experiments.until import Until, read_goal

        hooks.append(Until(read_goal(settings.until, env), folder))
    return in_turn(hooks) if hooks else None


def in_turn(hooks: Sequence[Hook]) -> Hook:
    """Return a hook that calls several, and logs what all of them return."""

    def call(step: int, metrics: Any, state: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            for hook in hooks:
                found |= hook(step, metrics, state) or {}
        except StopTraining as stop:
            raise StopTraining(str(stop), {**found, **(stop.metrics or {})}) from None
        return found

    return call
