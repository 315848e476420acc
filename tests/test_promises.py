"""The Python that README and pyproject.toml promise is one on which everything installs."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROMISED = SpecifierSet(PROJECT["requires-python"])
VERSIONS = [f"3.{minor}" for minor in range(9, 18)]


def test_the_readme_names_the_versions_that_install():
    found = re.search(r"You need Python (3\.\d+) or (3\.\d+)", (ROOT / "README.md").read_text())
    assert found
    assert [v for v in VERSIONS if v in PROMISED] == list(found.groups())


@pytest.mark.parametrize("version", VERSIONS)
def test_pip_takes_what_is_promised_and_nothing_else(version):
    python = shutil.which(f"python{version}")
    asked = [python, "-m", "pip", "--version"]
    if python is None or subprocess.run(asked, capture_output=True).returncode:
        pytest.skip(f"Python {version} with pip is not at hand")
    install = [python, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", str(ROOT)]
    done = subprocess.run(install, capture_output=True, text=True)
    refused = "requires a different Python" in done.stderr
    if done.returncode and not refused:
        pytest.skip(f"pip cannot build a package here: {done.stderr.strip().splitlines()[-1]}")
    assert refused == (version not in PROMISED), done.stderr


def test_this_interpreter_is_promised():
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PROMISED
