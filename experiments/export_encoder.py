"""Write the encoders of a run to a safetensors file, which `--encoder-from` takes.

    python experiments/export_encoder.py runs/mine eye.safetensors
    python experiments/export_encoder.py runs/mine@300000 left.safetensors --leaves vision_left

A file that exists is not overwritten.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import tyro

from experiments.settings import settings_of
from vnl_ppo import encoder_file, run_folder
from vnl_ppo.loading import read_weights
from vnl_ppo.runtime import check_jax


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of the program."""

    run: tyro.conf.Positional[str]
    """Run folder; RUN@STEP for a checkpoint that is not the newest; RUN/seed_3 for a seed."""
    output: tyro.conf.Positional[Path]
    """File to write, which ends in .safetensors and must not exist."""
    leaves: tuple[str, ...] = ()
    """Leaves whose encoders to write; empty for all."""


def export(run: str, output: Path, leaves: tuple[str, ...] = ()) -> int:
    """Write the encoders of a run to a file; return the number of arrays.

    Raises:
        ValueError: there is no such run, checkpoint or encoder, or the file exists.
        OSError: the file cannot be written.
    """
    encoder_file.check_new(output)
    settings = settings_of(run)
    folder, step = run_folder.split_name(run)
    number, weights = read_weights(folder, settings.ppo, int(step) if step else None)
    try:
        arrays = encoder_file.encoders_in(weights, leaves)
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error
    about = {"run": f"{folder.name}@{number}", "env": settings.env, "encoder": settings.encoder}
    encoder_file.write(output, arrays, about)
    return len(arrays)


def main() -> None:
    """Write the file, or print an error as one sentence."""
    try:
        check_jax()
        options = tyro.cli(ExportOptions, description=__doc__)
        output = options.output.expanduser()
        number = export(options.run, output, options.leaves)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{number} arrays in {output}")


if __name__ == "__main__":
    main()
