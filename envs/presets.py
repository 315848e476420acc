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
from envs.walkers.cmu_humanoid import CmuHumanoid
from envs.walkers.fruit_fly import FruitFly
from envs.walkers.jumping_ball import JumpingBall
from envs.walkers.mjcf_file import MjcfWalker
from envs.walkers.rodent import Rodent


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
            back_end: the physics back end: mujoco, mjx, warp or auto.
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
# A body of any height. dm_control's dog breaks down with fewer iterations.
RUN_ANYHOW = RunThroughCorridor(healthy_height=(0.0, 100.0))
ANY_BODY = SimulationConfig(iterations=20, ls_iterations=20)

# dm_control's numbers for its rodent, its humanoid and its fly, but that the physics steps of the
# rodent and of the fly are twice as long; docs/animals.md says what that changes.
RODENT_TIME = SimulationConfig(physics_timestep=0.002, control_timestep=0.02)
HUMANOID_TIME = SimulationConfig(physics_timestep=0.005, control_timestep=0.03)
FLY_TIME = SimulationConfig(physics_timestep=0.0002, control_timestep=0.002)
# On a floor nothing shows which way x is, and neither the rodent nor the fly feels it.
RODENT_ON_FLOOR = dataclasses.replace(RODENT_TIME, compass=True)
FLY_ON_FLOOR = dataclasses.replace(FLY_TIME, compass=True)
RODENT_GAPS = Gaps(width=2.0, platform_length=(0.4, 0.8), gap_length=(0.05, 0.2))
HUMANOID_GAPS = Gaps(
    "default", 10.0, 100.0, platform_length=(0.3, 2.5), gap_length=(0.5, 1.25), num_slots=4
)
HUMANOID_WALLS = Walls(
    10.0, 100.0, wall_gap=(4.0, 4.0), wall_width=(1.0, 7.0), wall_height=3.0, side="alternate"
)
# The terms of the notebook's reward are 0; what is left is dm_control's.
AT_SPEED = RunThroughCorridor(
    forward=0.0, control=0.0, healthy=0.0, time=0.0, target=1.0, healthy_height=(-1.0, 3.0)
)
RODENT_RUN = dataclasses.replace(AT_SPEED, target_velocity=1.0, end_effector_height=-0.3)
HUMANOID_RUN = dataclasses.replace(AT_SPEED, end_effector_height=-0.5, only_feet=True)
STAND = dataclasses.replace(AT_SPEED, target_velocity=0.0, healthy_height=(0.7, 2.0))
# dm_control's reward is 0 at rest and below, and a rodent learned nothing from it. Where an episode
# went on upside down, the rodent learned to roll, and the fly to fall over its head.
UPRIGHT = dataclasses.replace(AT_SPEED, healthy=0.5, least_upright=0.5)
RODENT_FORWARD = dataclasses.replace(UPRIGHT, target=0.0, forward=5.0)
# In centimetres. For speed alone the fly learns one leap, which ends the episode.
FLY_RUN = dataclasses.replace(
    UPRIGHT, target=5.0, target_velocity=2.0, forward=0.5, healthy_height=(0.03, 1.0)
)

PRESETS = {
    "gap_ant": Preset(Gaps(), Ant(), RunThroughCorridor()),
    "stones_ant": Preset(STONES, Ant(), RunThroughCorridor()),
    "walls_ant": Preset(Walls(), Ant(), RunThroughCorridor()),
    "walls_ball": Preset(Walls(), LOW_BALL, RunThroughCorridor(healthy_height=(0.0, 3.0))),
    "target_ant": Preset(ANYWHERE, Ant(), TARGETS),
    "target_ball": Preset(ANYWHERE, JumpingBall(), TARGETS),
    "rodent_floor": Preset(Floor(), Rodent(), RODENT_FORWARD, simulation=RODENT_ON_FLOOR),
    "rodent_gaps": Preset(RODENT_GAPS, Rodent(), RODENT_RUN, simulation=RODENT_TIME),
    "humanoid_stand": Preset(Floor(), CmuHumanoid(), STAND, simulation=HUMANOID_TIME),
    "humanoid_gaps": Preset(HUMANOID_GAPS, CmuHumanoid(), HUMANOID_RUN, simulation=HUMANOID_TIME),
    "humanoid_walls": Preset(HUMANOID_WALLS, CmuHumanoid(), HUMANOID_RUN, simulation=HUMANOID_TIME),
    "fly_floor": Preset(Floor(), FruitFly(), FLY_RUN, simulation=FLY_ON_FLOOR),
    "mjcf_floor": Preset(Floor(), MjcfWalker(), RUN_ANYHOW, simulation=ANY_BODY),
    "bowl_ant": Preset(Bowl(), Ant(), Escape()),
    "bowl_rodent": Preset(Bowl(), Rodent(), Escape(), simulation=RODENT_TIME),
    "maze_ball": Preset(Maze(reach=0.5), LOW_BALL, Forage()),
}
NEED_A_FILE = ("mjcf_floor",)
"""Presets that cannot be made without a user's file."""
