"""Compiled programs run as the user: they are only kept where nobody else can write."""

import contextlib
import os
import warnings
from pathlib import Path

import jax
import pytest

from vnl_ppo.runtime import check_jax, keep_compilations, others_can_write


@pytest.fixture
def settings():
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_folder_of_ones_own_is_trusted_and_an_open_one_is_not(tmp_path):
    inner = tmp_path / "cache" / "compilations"
    inner.mkdir(parents=True)
    assert others_can_write(inner) == ""
    for mode in (0o770, 0o707):
        inner.chmod(mode)
        assert f"others may write to {inner}" in others_can_write(inner)
    inner.chmod(0o700)
    # Who can write to a folder can put another in the place of one in it.
    inner.parent.chmod(0o777)
    assert f"others may write to {inner.parent}" in others_can_write(inner)
    inner.parent.chmod(0o1777)
    assert others_can_write(inner) == ""
    # An open folder is no better for its sticky bit: others may add to it.
    inner.chmod(0o1777)
    assert others_can_write(inner)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_not_trusted(tmp_path):
    os.chown(tmp_path, 12345, -1)
    assert f"{tmp_path} belongs to another user" in others_can_write(tmp_path)


def test_the_folder_is_made_for_the_user_alone(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    try:
        folder = keep_compilations().folder
    finally:
        os.umask(before)
    assert folder == tmp_path / "vnl_ppo" / "compilations"
    assert [oct(x.stat().st_mode & 0o777) for x in (folder, folder.parent)] == ["0o700"] * 2


def test_an_open_folder_is_not_used(tmp_path, settings):
    tmp_path.chmod(0o777)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "open"))
    with pytest.warns(UserWarning, match="not kept, so every start.*others may write to"):
        kept = keep_compilations()
    assert kept.folder is None and jax.config.jax_compilation_cache_dir is None
    assert str(kept) == "compiled programs are not kept"


def test_no_home_is_no_reason_to_stop(monkeypatch, settings, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(UserWarning, match="not kept.*Could not determine home"):
        assert keep_compilations().folder is None
    # With a folder that is named, the home does not matter.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    assert keep_compilations().folder == tmp_path / "named"


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(settings, tmp_path):
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="not kept"):
        assert keep_compilations().folder is None


@contextlib.contextmanager
def set_to(name, value):
    """Give a setting of JAX a value inside this context."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize(("name", "value"), [("jax_enable_x64", True), ("jax_disable_jit", True)])
def test_settings_of_jax_under_which_nothing_runs_are_refused(name, value):
    message = f"{name.upper()} is set, but .*; unset it"
    with set_to(name, value), pytest.raises(ValueError, match=message):
        check_jax()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_debug_nans", True),
        ("jax_debug_infs", True),
        ("jax_check_tracer_leaks", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_settings_of_jax_that_would_stop_a_run_are_turned_off(name, value):
    with set_to(name, value):
        with pytest.warns(UserWarning, match=f"{name.upper()} is turned off: "):
            check_jax()
        assert getattr(jax.config, name) != value
        with warnings.catch_warnings(action="error"):
            check_jax()
