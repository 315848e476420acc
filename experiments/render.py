"""Film a trained ant, or two beside each other in the same corridor.

python experiments/render.py runs/mine
python experiments/render.py runs/mine random --output race.gif --speed 0.5
python experiments/render.py runs/mine@300000 --camera egocentric --seed 3
python experiments/render.py runs/mine --draw contacts joints com        # needs OpenGL

The film goes into the (first) run's videos/ unless --output says otherwise.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from envs import world
from envs.gap_ant import GapAnt
from envs.marked_film import MARKS, marked_film
from envs.video import check_path, film, side_by_side, write
from experiments.evaluate import choose_corridor
from experiments.gap_ant import RANDOM, Player, load_player, split_name
from vnl_ppo import run_folder
from vnl_ppo.evaluation import record
from vnl_ppo.runtime import keep_compilations


def main() -> None:
    """Film and say where the film is."""
    arguments = parse(sys.argv[1:])
    try:
        check(arguments)
        path = output(arguments)
        check_path(path)
        corridor = choose_corridor(arguments.policies, None, arguments.gap_length)
        players = [load_player(name, corridor) for name in arguments.policies]
        for player in players:
            player.env.camera(camera_name(player.env, arguments.camera), 16, 16)
        keep_compilations()
        films = [frames(player, arguments) for player in players]
        write(films[0] if len(films) == 1 else side_by_side(*films), path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    names = ", ".join(player.name for player in players)
    print(f"{names}: {path}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="+", help="one or two: run folders, RUN@STEP, or random")
    parser.add_argument("--output", type=Path, help="an .mp4 or .gif; never overwritten")
    parser.add_argument("--camera", default="floating", help="of the walker, by name or number")
    parser.add_argument("--seed", type=int, default=0, help="another draws another corridor")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the episode, at most")
    parser.add_argument("--speed", type=float, default=1.0, help="0.5 is half as fast as real time")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--inset", type=int, default=160, help="height of the own view; 0: none")
    parser.add_argument(
        "--draw", nargs="+", choices=MARKS, default=(), help="marks; MuJoCo's renderer draws then"
    )
    parser.add_argument(
        "--gap-length", type=float, nargs=2, metavar=("LOWEST", "HIGHEST"), help="metres"
    )
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError that names the first argument that cannot be."""
    if len(arguments.policies) > 2:
        raise ValueError(f"{len(arguments.policies)} policies are named; a film shows one or two")
    for name in ("seconds", "speed"):
        if not 0 < getattr(arguments, name) < float("inf"):
            raise ValueError(f"--{name} is {getattr(arguments, name)}; it has to be above 0")
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(f"--seed is {arguments.seed}; it has to be from 0 to {2**32 - 1}")
    height, width = arguments.size
    if min(height, width) < 16 or height % 16 or width % 16:
        raise ValueError(f"--size is {height} {width}; both have to be multiples of 16 pixels")
    if not 0 <= arguments.inset <= min(height, width) - 32:
        raise ValueError(
            f"--inset is {arguments.inset}; it has to be from 0 to {min(height, width) - 32}, or "
            f"there is no room for it in the picture"
        )


def output(arguments: argparse.Namespace) -> Path:
    """Where the film goes."""
    if arguments.output:
        return arguments.output
    first = arguments.policies[0]
    plain = [name.strip("/").replace("/", "_") for name in arguments.policies]
    name = "-".join([*plain, arguments.camera, f"seed{arguments.seed}"]) + ".mp4"
    if first == RANDOM:
        return Path(name)
    folder, _ = run_folder.split_agent(split_name(first)[0])
    return folder / run_folder.VIDEOS / name


def camera_name(env: GapAnt, camera: str) -> str:
    """A camera of the walker, by its name or its number among them."""
    names = world.walker_cameras(env.looks)
    if not camera.isdigit():
        return camera
    if int(camera) >= len(names):
        listed = ", ".join(f"{i} {name}" for i, name in enumerate(names))
        raise ValueError(f"--camera is {camera}; the walker has {listed}")
    return names[int(camera)]


def frames(player: Player, arguments: argparse.Namespace) -> Iterator[np.ndarray]:
    """The film of one policy. A seed stands for its corridor."""
    env = player.env
    length = max(1, round(arguments.seconds / env.dt))
    episode = jax.jit(lambda key: record(env, player.actor, key, length))
    data, alive = episode(jax.random.key(arguments.seed))
    camera = camera_name(env, arguments.camera)
    if arguments.draw:
        marks, speed = arguments.draw, arguments.speed
        return marked_film(env, data, alive, camera, tuple(arguments.size), marks, speed)
    return film(env, data, alive, camera, arguments.size, arguments.inset, arguments.speed)


if __name__ == "__main__":
    main()
