"""Imports go one way: experiments -> envs, encoders, vnl_ppo; envs -> vnl_ppo.env alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"vnl_ppo", "envs", "encoders", "experiments"}
ALLOWED = {
    "vnl_ppo": ("vnl_ppo",),
    "envs": ("envs", "vnl_ppo.env"),
    "encoders": ("encoders",),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.split(".")[0] in OURS:
                allowed = ALLOWED[folder]
                assert any(name == a or name.startswith(a + ".") for a in allowed), (path, name)
