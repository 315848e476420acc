"""Define the networks that Brax PPO is given. Runs in the environment of Brax."""

from functools import partial

from brax.training.agents.ppo import networks, networks_vision
from hyper_parameters import HIDDEN

WIDTHS = {"policy_hidden_layer_sizes": HIDDEN, "value_hidden_layer_sizes": HIDDEN}

make_networks = partial(networks.make_ppo_networks, **WIDTHS)

# The layers of Mnih et al. (2015) as our encoder has them, one eye for the policy and one for the
# value; a padded image, Brax's default, would take more.
make_vision_networks = partial(
    networks_vision.make_ppo_networks_vision,
    **WIDTHS,
    policy_obs_key="state",
    value_obs_key="state",
    cnn_padding="valid",
    cnn_global_pool="none",
)
