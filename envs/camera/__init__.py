"""Draw what cameras of a MuJoCo model see: a ray caster in JAX, for jit and vmap, without GL."""

from envs.camera.pinhole import FREE, Camera, free_pose
from envs.camera.raycaster import Image, render
from envs.camera.scene import Row, Scene

__all__ = ["FREE", "Camera", "Image", "Row", "Scene", "free_pose", "render"]
