"""docs/encoders.md says what is so: its specs fit, its tables are complete, its module works."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from encoders import make_encoders
from experiments.encoder_table import rows

PAGE = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text()
LEAVES = {
    "vision": jax.ShapeDtypeStruct((64, 64, 6), jnp.uint8),
    "proprio": jax.ShapeDtypeStruct((27,), jnp.float32),
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_the_tables_have_every_encoder(row):
    line, *_ = [line for line in PAGE.splitlines() if line.startswith(f"| `{row.name}` |")]
    cells = [cell.strip() for cell in line.split("|")]
    assert row.settings in cells and row.source in line
    if row.parameters:
        assert f"{row.parameters:,}" in cells
    elif "x" in row.gives:
        assert row.gives in cells


def test_the_specs_and_the_module_work(tmp_path, monkeypatch):
    (module,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_eyes.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    commands = re.findall(r"^python .*--encoder (.*?)(?: --frames 2)?\n", PAGE, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        spec = command.strip('"').replace('" "', ", ")
        assert "vision" in make_encoders(spec, LEAVES, frames=2), spec
