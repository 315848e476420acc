"""Mistakes in a user's own arena, task or body: each is one sentence, before anything compiles."""

import dataclasses

import jax.numpy as jnp
import pytest

from envs import catalogue
from envs.arenas.floor import Floor
from envs.interfaces import Arena, Boxes, Outcome, Task, Visible
from envs.locomotion import Locomotion
from envs.presets import Preset
from envs.tasks.run_through_corridor import RunThroughCorridor
from envs.walkers.ant import Ant

BOX = {"type": "box", "size": (1, 1, 1), "pos": (5, 0, 1)}


@dataclasses.dataclass(frozen=True)
class TooFewSlots(Floor):
    def slots(self, root):
        return [BOX, BOX]

    def boxes(self, layout, position, reach):
        return Boxes(jnp.ones((3, 3)), jnp.ones((3, 3)))


@dataclasses.dataclass(frozen=True)
class SeenTwice(Floor):
    def visible(self, layout):
        return Visible(geoms=Boxes(jnp.ones((2, 3)), jnp.ones((2, 3))))


@dataclasses.dataclass(frozen=True)
class TellsATable(Floor):
    def ahead(self, layout, position):
        return jnp.zeros((3, 2))


@dataclasses.dataclass(frozen=True)
class CountsOnly(Floor):
    def progress(self, layout, position):
        return position[0]


@dataclasses.dataclass(frozen=True)
class PaysVectors(Task):
    def judge(self, now, action, arena, dt):
        return Outcome(reward=now.velocity)


@dataclasses.dataclass(frozen=True)
class PaysOnly(Task):
    def judge(self, now, action, arena, dt):
        return now.velocity[0]


@pytest.mark.parametrize(
    "arena, task, message",
    [
        (TooFewSlots(), None, r"TooFewSlots.boxes has position of shape \[3, 3\].*names 2 geoms"),
        (SeenTwice(), None, r"SeenTwice.visible has position of shape \[2, 3\].*names 0 geoms"),
        (TellsATable(), None, r"TellsATable.ahead returns shape \[3, 2\]; it has to be a vector"),
        (CountsOnly(), None, "CountsOnly.progress has to return a Progress"),
        (Floor(), PaysVectors(), r"PaysVectors.judge returns reward of shape \[3\]"),
        (Floor(), PaysOnly(), "PaysOnly.judge returns a .*; it has to be an Outcome"),
    ],
)
def test_a_part_that_does_not_fit_is_named(arena, task, message):
    with pytest.raises(ValueError, match=message):
        Locomotion(arena, Ant(), task or RunThroughCorridor(), back_end="mujoco")


def test_what_has_to_be_written_is_named():
    class NoPlace(Arena):
        pass

    class Misspelt(Task):
        def jugde(self, now, action, arena, dt):
            return Outcome(reward=0.0)

    with pytest.raises(TypeError, match="abstract method '?build"):
        NoPlace()
    with pytest.raises(TypeError, match="abstract method '?judge"):
        Misspelt()


def test_a_module_without_an_object_is_told(tmp_path, monkeypatch):
    (tmp_path / "my_garden_of_tests.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a module; name one.*my_garden_of_tests:OBJECT"):
        catalogue.find("my_garden_of_tests")


class NoDataclass(Floor):
    friction: float = 1.0


@pytest.mark.parametrize(
    "parts, message",
    [
        ((Ant(), Floor(), PaysOnly()), "a preset's arena is of type Ant, not Arena"),
        ((Floor, Ant(), PaysOnly()), r"arena is the class Floor; give it an object, Floor\(\)"),
        ((Floor(), Ant(), Floor()), "a preset's task is of type Floor, not Task"),
        ((NoDataclass(), Ant(), PaysOnly()), "NoDataclass has settings but is no dataclass"),
    ],
)
def test_parts_in_the_wrong_place_are_told(parts, message):
    with pytest.raises(ValueError, match=message):
        Preset(*parts)


def test_no_frames_are_refused_with_and_without_eyes():
    for seeing in (True, False):
        with pytest.raises(ValueError, match="frames is 0; it has to be 1 or more"):
            catalogue.make("gap_ant", seeing=seeing, frames=0)
