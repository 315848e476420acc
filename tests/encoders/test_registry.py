"""Choosing an encoder by name or by path, and what is said when that fails."""

import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from encoders import MLP, Identity, NatureCNN, make_encoder, register, registered, registry


@pytest.fixture
def eyes(tmp_path, monkeypatch):
    source = """
    import flax.linen as nn

    class Retina(nn.Module):
        gain: float

        def __call__(self, x):
            return self.gain * x.mean((-3, -2))

    class NoModule:
        pass

    number = 3
    """
    package = tmp_path / "animal_eyes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "fly.py").write_text(textwrap.dedent(source))
    (package / "broken.py").write_text("import no_such_package_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    "name, cls", [("nature_cnn", NatureCNN), ("mlp", MLP), ("identity", Identity)]
)
def test_registered_names(name, cls):
    assert type(make_encoder(name)) is cls
    assert name in registered()


def test_settings_reach_the_module():
    assert make_encoder("nature_cnn", features=64).features == 64


def test_a_class_by_path(eyes):
    encoder = make_encoder("animal_eyes.fly:Retina", gain=2.0)
    assert encoder.apply({}, jnp.ones((5, 8, 8, 3))).shape == (5, 3)


def test_our_own_class_by_path():
    encoder = make_encoder("encoders.mlp:MLP", hidden_layer_sizes=(4,))
    assert encoder.init_with_output(jax.random.key(0), jnp.ones(2))[0].shape == (4,)


@pytest.mark.parametrize(
    "spec, settings, parts",
    [
        (
            "natur_cnn",
            {},
            [
                "'natur_cnn'",
                "did you mean 'nature_cnn'",
                "identity, impala, mlp",
                "package.module:Class",
            ],
        ),
        ("", {}, ["unknown encoder ''", "nature_cnn"]),
        ("zzz", {}, ["unknown encoder 'zzz'", "package.module:Class"]),
        ("no_such_module:Eye", {}, ["cannot import", "'no_such_module'", "PYTHONPATH"]),
        ("animal_eyes.broken:Eye", {}, ["cannot import", "no_such_package_at_all"]),
        ("animal_eyes.fly:Retna", {}, ["no class 'Retna'", "Retina"]),
        ("animal_eyes.fly:NoModule", {}, ["flax.linen.Module", "NoModule"]),
        ("animal_eyes.fly:number", {}, ["flax.linen.Module", "3"]),
        ("animal_eyes.fly:", {}, ["package.module:Class"]),
        (":Retina", {}, ["package.module:Class"]),
        ("a b:Retina", {}, ["package.module:Class"]),
        ("animal_eyes.fly:Retina", {}, ["needs a value for 'gain'"]),
        ("nature_cnn", {"width": 3}, ["no setting 'width'", "features"]),
        ("identity", {"features": 3}, ["no setting 'features'", "takes none"]),
    ],
)
def test_what_cannot_be_made(eyes, spec, settings, parts):
    with pytest.raises(ValueError) as raised:
        make_encoder(spec, **settings)
    for part in parts:
        assert part in str(raised.value)


def test_registering_another_name(monkeypatch):
    # Other tests list what is registered.
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register("test_only_eye")
    class Eye(nn.Module):
        pass

    assert type(make_encoder("test_only_eye")) is Eye
    with pytest.raises(ValueError, match="'test_only_eye' belongs to"):

        @register("test_only_eye")
        class OtherEye(nn.Module):
            pass


@pytest.mark.parametrize("name", ["", "a:b"])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ValueError, match="must not be empty nor contain"):
        register(name)
