"""Draw what cameras of a MuJoCo model see: a ray caster in JAX, for jit and vmap, without GL."""

from envs.camera.pinhole import Camera
from envs.camera.raycaster import Image, render
from envs.camera.scene import Row, Scene

__all__ = ["Camera", "Image", "Row", "Scene", "render"]
