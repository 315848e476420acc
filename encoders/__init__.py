"""Encoders: `flax.linen` modules that turn one leaf of an observation into features.

An encoder takes the raw leaf, such as uint8 images, with any leading batch axes, and returns
features with the same leading axes. Stages (`encoders.stages`), which turn images into images, come
before it in a chain. Name your own on the command line as `package.module:Class`.
"""

from encoders import stages
from encoders.alexnet import AlexNet
from encoders.batches import in_batches
from encoders.blocked_convolution import convolve
from encoders.dropout import Dropout
from encoders.identity import Identity
from encoders.impala import Impala
from encoders.mlp import MLP
from encoders.nature_cnn import NatureCNN
from encoders.pixels import scale_pixels
from encoders.registry import register, registered
from encoders.resnet import ResNet
from encoders.specification import make_encoder, make_encoders
from encoders.vit import ViT

__all__ = [
    "MLP",
    "AlexNet",
    "Dropout",
    "Identity",
    "Impala",
    "NatureCNN",
    "ResNet",
    "ViT",
    "convolve",
    "in_batches",
    "make_encoder",
    "make_encoders",
    "register",
    "registered",
    "scale_pixels",
    "stages",
]
