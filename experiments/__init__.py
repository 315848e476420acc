"""Programs to train, evaluate, film and watch; only this package joins `envs` and `encoders`."""

import os as _os
import sys as _sys

# Packages that are imported next end in a traceback of theirs without these.
if _sys.flags.optimize > 1:
    raise SystemExit(
        "error: Python runs without docstrings (PYTHONOPTIMIZE=2 or -OO), which TensorFlow "
        "Probability, a part of distrax, needs; use PYTHONOPTIMIZE=1 or none"
    )
try:
    _os.getcwd()
except FileNotFoundError as _gone:
    raise SystemExit("error: the working directory does not exist; go to one that does") from _gone
