"""List the environments, each made of an arena, a walker and a task."""

import dataclasses

from envs.arenas.bowl import Bowl
from envs.arenas.floor import Floor
from envs.arenas.gaps import Gaps
from envs.arenas.maze import Maze
from envs.arenas.walls import Walls
from envs.interfaces import Arena, Task, Walker
from envs.locomotion import Locomotion
from envs.models import SimulationConfig
from envs.tasks.escape import Escape
from envs.tasks.forage import Forage
from envs.tasks.go_to_target import GoToTarget
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.vision import VisionConfig
from envs.walkers.ant import Ant
from envs.walkers.jumping_ball import JumpingBall


@dataclasses.dataclass(frozen=True)
class Preset:
    """The parts of an environment, each of which may be replaced.

    Raises:
        ValueError: a part has another type, is a class, or has settings without being a dataclass.
    """

    arena: Arena
    walker: Walker
    task: Task
    vision: VisionConfig = VisionConfig()
    simulation: SimulationConfig = SimulationConfig()

    def __post_init__(self) -> None:
        for name, kind in (("arena", Arena), ("walker", Walker), ("task", Task)):
            part = getattr(self, name)
            is_class = isinstance(part, type)
            made = part if is_class else type(part)
            if kind not in made.__mro__:
                raise ValueError(
                    f"a preset's {name} is of type {made.__name__}, not {kind.__name__}"
                )
            if is_class:
                raise ValueError(
                    f"a preset's {name} is the class {made.__name__}; give it an object, "
                    f"{made.__name__}()"
                )
            if "__annotations__" in vars(made) and "__dataclass_fields__" not in vars(made):
                raise ValueError(
                    f"{made.__name__} has settings but is no dataclass; write "
                    "@dataclasses.dataclass(frozen=True) above it"
                )

    def make(
        self, *, seeing: bool = True, back_end: str = "auto", ahead: bool = False
    ) -> Locomotion:
        """Make the environment.

        Args:
            seeing: whether the observations have the images of the walker's cameras.
            back_end: the physics back end: mujoco, mjx or auto.
            ahead: whether `ahead` is observed too; see `envs.locomotion.Locomotion`.

        Raises:
            ValueError: a setting is invalid.
        """
        vision = self.vision if seeing else None
        return Locomotion(
            self.arena, self.walker, self.task, vision, self.simulation, back_end, ahead
        )


STONES = Gaps(gap_length=(0.1, 0.2), platform_width=2.5, platform_shift=(-1.0, 1.0))
ANYWHERE = Floor(spawn_yaw=(-3.1416, 3.1416))
TARGETS = GoToTarget(moving_target=True, approach=10.0)
# Its eye is below the edges of walls, and it jumps.
LOW_BALL = JumpingBall(camera_height=0.0)

PRESETS = {
    "gap_ant": Preset(Gaps(), Ant(), RunThroughCorridor()),
    "stones_ant": Preset(STONES, Ant(), RunThroughCorridor()),
    "walls_ant": Preset(Walls(), Ant(), RunThroughCorridor()),
    "walls_ball": Preset(Walls(), LOW_BALL, RunThroughCorridor(healthy_height=(0.0, 3.0))),
    "target_ant": Preset(ANYWHERE, Ant(), TARGETS),
    "target_ball": Preset(ANYWHERE, JumpingBall(), TARGETS),
    "bowl_ant": Preset(Bowl(), Ant(), Escape()),
    "maze_ball": Preset(Maze(reach=0.5), LOW_BALL, Forage()),
}
