"""Train an ant to run through a corridor with gaps, by what its own camera sees.

    python experiments/gap_ant_vision.py
    python experiments/gap_ant_vision.py --encoder none            # a blind ant
    python experiments/gap_ant_vision.py --encoder my_lab.eyes:Retina
    python experiments/gap_ant_vision.py --resume runs/gap_ant_vision-20260101-120000
    python experiments/gap_ant_vision.py --config runs/gap_ant_vision-20260101-120000/config.json

The flags are those of train.py. A run goes to a new folder in runs/ unless --run-dir names another.
"""

from experiments.command_line import main

if __name__ == "__main__":
    main(__doc__, env="gap_ant")
