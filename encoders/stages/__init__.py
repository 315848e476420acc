"""Stages: fixed `flax.linen` modules that turn images into images, before an encoder in a chain.

A stage takes uint8 in 0 to 255 or floats in 0 to 1, [..., H, W, C] with any leading axes, and
returns the same kind of image: where it only averages or picks pixels, bytes stay bytes, else it
returns float32 in 0 to 1. Channels are treated apart unless a stage says otherwise. Stages have no
parameters, draw no random numbers but for `noise`, and pass gradients on.
"""

from encoders.stages.blur import Blur
from encoders.stages.crop import Crop
from encoders.stages.dog import DifferenceOfGaussians
from encoders.stages.downsample import Downsample
from encoders.stages.edges import Edges
from encoders.stages.flatten import Flatten
from encoders.stages.fovea import Fovea
from encoders.stages.gabor import Gabor
from encoders.stages.gray import Gray
from encoders.stages.motion import Motion
from encoders.stages.noise import Noise

__all__ = [
    "Blur",
    "Crop",
    "DifferenceOfGaussians",
    "Downsample",
    "Edges",
    "Flatten",
    "Fovea",
    "Gabor",
    "Gray",
    "Motion",
    "Noise",
]
