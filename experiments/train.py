"""Train a policy in any environment.

    python experiments/train.py --env stones_ant
    python experiments/train.py --env walls_ball --encoder none    # blind
    python experiments/train.py --env my_lab.worlds:MAZE           # your own
    python experiments/train.py --env brax:ant
    python experiments/train.py --env playground:CartpoleBalance --num-envs 128
    python experiments/train.py --resume runs/brax_ant-20260101-120000

A run goes to a new folder in runs/, unless --run-dir names another one.
"""

from experiments.command_line import main
from experiments.settings import build_from

__all__ = ["build_from"]  # The builder of Brax's and Playground's runs in release 0.1.

if __name__ == "__main__":
    main(__doc__)
