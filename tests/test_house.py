"""Hold the direction of imports (docs/README.md, "Code layout").

experiments joins encoders, envs and vnl_ppo, which do not know each other, but that envs know the
protocol in vnl_ppo.env. Arenas, walkers and tasks know neither each other nor what is made of them.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"vnl_ppo", "envs", "encoders", "experiments", "benchmarks", "tests"}
ALLOWED = {
    "vnl_ppo": ("vnl_ppo",),
    "envs": ("envs", "vnl_ppo.env"),
    "encoders": ("encoders",),
    "experiments": ("experiments", "encoders", "envs", "vnl_ppo"),
}
PARTS = ("arenas", "walkers", "tasks")
COMPOSED = ("locomotion", "presets", "catalogue")


def imports(path):
    """Names of the modules that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from envs import models` imports envs.models.
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from (n if is_module(n) else module for n in names)


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def within(name, places):
    return any(name == place or name.startswith(place + ".") for place in places)


def files(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    for path in files(folder):
        for name in imports(path):
            if name.split(".")[0] in OURS:
                assert within(name, ALLOWED[folder]), (path, name)


@pytest.mark.parametrize("part", PARTS)
def test_arenas_walkers_and_tasks_know_neither_each_other_nor_the_whole(part):
    others = [f"envs.{name}" for name in (*PARTS, *COMPOSED) if name != part]
    for path in files(f"envs/{part}"):
        for name in imports(path):
            assert not within(name, others), (path, name)
            # Each is a file of its own.
            assert not within(name, [f"envs.{part}"]), (path, name)


def test_only_presets_name_arenas_walkers_and_tasks():
    parts = [f"envs.{part}" for part in PARTS]
    for path in files("envs"):
        if path.name != "presets.py":
            for name in imports(path):
                assert not within(name, parts), (path, name)


def test_analyses_know_no_environment_and_no_network():
    for path in files("experiments/analysis"):
        for name in imports(path):
            allowed = ("experiments.analysis", "vnl_ppo.intervals")
            assert name.split(".")[0] not in OURS or within(name, allowed), (path, name)


def test_only_experiments_join_the_three():
    joined = [path for path in files("experiments") if len(known_to(path)) > 1]
    assert joined
    for folder in ("vnl_ppo", "envs", "encoders"):
        for path in files(folder):
            others = known_to(path) - {folder}
            assert others <= ({"vnl_ppo"} if folder == "envs" else set()), (path, others)


def known_to(path):
    return {name.split(".")[0] for name in imports(path)} & {"vnl_ppo", "envs", "encoders"}
