"""The networks that Brax PPO is given. Runs where Brax does."""

from functools import partial

from brax.training.agents.ppo import networks
from hyper_parameters import HIDDEN

make_networks = partial(
    networks.make_ppo_networks,
    policy_hidden_layer_sizes=HIDDEN,
    value_hidden_layer_sizes=HIDDEN,
)
