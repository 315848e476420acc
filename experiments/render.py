"""Film one policy, or two side by side, each in an episode from the same first state.

    python experiments/render.py runs/mine
    python experiments/render.py runs/mine random --output race.gif --speed 0.5
    python experiments/render.py runs/mine@300000 --camera egocentric --seed 3
    python experiments/render.py runs/mine --draw contacts joints com        # needs OpenGL

The video goes into videos/ of the first run's folder unless --output names a file.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from envs.film import Filmed, check_path, film, marked_film, side_by_side, write
from experiments.players import RANDOM, Options, Player, load_players, parse
from vnl_ppo import run_folder
from vnl_ppo.evaluation import record
from vnl_ppo.run_folder import split_name
from vnl_ppo.runtime import keep_compilations


@dataclasses.dataclass(frozen=True)
class RenderOptions(Options):
    """Options of `render.py`, which films one policy or two."""

    output: Path | None = None
    """Path of the .mp4 or .gif to write, which must not exist; None for one in videos/."""
    camera: str = ""
    """Name or number of the camera that films; empty for the environment's default."""
    seconds: float = 10.0
    """Maximum length of the filmed episode, seconds."""
    speed: float = 1.0
    """Speed of the video: 1 for real time, 0.5 for half as fast."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the video, pixels; multiples of 16."""
    inset: int = 160
    """Height of the inset of what the walker sees, pixels; 0 for none."""
    draw: tuple[Literal["contacts", "joints", "com"], ...] = ()
    """Marks to draw, by MuJoCo's renderer, which needs OpenGL; empty for none."""

    def check(self) -> None:
        """Raise a ValueError that names the first invalid option."""
        super().check()
        shown = sum(1 if name == RANDOM else 1 + len(self.lesions) for name in self.policies)
        if shown > 2:
            raise ValueError(
                f"{shown} policies are named, those with a lesion among them; a video shows one "
                f"or two"
            )
        for name in ("seconds", "speed"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be above 0")
        height, width = self.size
        if min(height, width) < 16 or height % 16 or width % 16:
            raise ValueError(f"--size is {height} {width}; both have to be multiples of 16 pixels")
        most = min(height, width) - 32
        if not 0 <= self.inset <= most:
            raise ValueError(
                f"--inset is {self.inset}; it has to be from 0 to {most} to fit into the video; "
                f"choose a smaller --inset or a larger --size"
            )


def main() -> None:
    """Film and print the path of the video."""
    try:
        options, world = parse(RenderOptions, sys.argv[1:], __doc__)
        path = output(options)
        check_path(path)
        players = load_players(options.policies, world, lesions=options.lesions)
        for player in players:
            env = player.filmed
            env.camera(camera_name(env, options.camera), 16, 16)
        keep_compilations()
        films = [frames(player, options) for player in players]
        write(films[0] if len(films) == 1 else side_by_side(*films), path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    names = ", ".join(player.name for player in players)
    print(f"{names}: {path}")


def output(options: RenderOptions) -> Path:
    """Return the path of the video."""
    if options.output:
        return options.output
    first = options.policies[0]
    plain = [name.strip("/").replace("/", "_") for name in options.policies]
    lesions = [re.sub(r"[^\w=.,-]+", "_", str(lesion)) for lesion in options.lesions]
    parts = [*plain, *lesions, options.camera or "film", f"seed{options.seed}"]
    name = "-".join(parts) + ".mp4"
    if first == RANDOM:
        return Path(name)
    folder, _ = run_folder.split_agent(split_name(first)[0])
    return folder / run_folder.VIDEOS / name


def camera_name(env: Filmed, camera: str) -> str:
    """Return the name of a camera given by name or number; an empty text gives the default."""
    if not camera.isdigit():
        return camera or env.film_camera
    if int(camera) >= len(env.cameras):
        listed = ", ".join(f"{i} {name}" for i, name in enumerate(env.cameras))
        raise ValueError(f"--camera is {camera}; there are {listed}")
    return env.cameras[int(camera)]


def frames(player: Player, options: RenderOptions) -> Iterator[np.ndarray]:
    """Return the frames of a video of one policy, in the episode that `options.seed` draws."""
    env = player.filmed
    length = max(1, round(options.seconds / env.dt))
    episode = jax.jit(lambda actor, key: record(player.env, actor, key, length))
    data, alive = episode(player.actor, jax.random.key(options.seed))
    camera = camera_name(env, options.camera)
    if options.draw:
        return marked_film(env, data, alive, camera, options.size, options.draw, options.speed)
    return film(env, data, alive, camera, options.size, options.inset, options.speed)


if __name__ == "__main__":
    main()
