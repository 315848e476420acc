"""The camera: a ray caster in JAX, inside jit, vmap and scan, on any device, with no GL."""

from envs.camera.pinhole import Camera
from envs.camera.raycaster import Image, render
from envs.camera.scene import Row, Scene

__all__ = ["Camera", "Image", "Row", "Scene", "render"]
