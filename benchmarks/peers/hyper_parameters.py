"""Define the hyper-parameters that both sides of a comparison are given."""

HIDDEN = (128, 128)
"""Widths of the policy's and of the value function's hidden layers, with swish between them."""

NO_CLIPPING = 1e9
"""A global norm that no gradient reaches: Brax clips none unless told to."""

SETTINGS = {
    "num_envs": 256,
    "episode_length": 1000,
    "unroll_length": 20,
    "batch_size": 32,
    "num_minibatches": 8,
    "num_updates_per_batch": 4,
    "learning_rate": 3e-4,
    "entropy_cost": 1e-2,
    "discounting": 0.97,
    "gae_lambda": 0.95,
    "reward_scaling": 1.0,
    "clipping_epsilon": 0.3,
    "normalize_observations": True,
}
"""Under Brax's names."""


def steps_per_iteration(settings: dict[str, float]) -> int:
    """Environment steps of one training iteration."""
    return int(settings["batch_size"] * settings["num_minibatches"] * settings["unroll_length"])
