"""Prepare any picture of a digit the way MNIST's were, and classify it.

MNIST's digits were scaled to fit 20 x 20 pixels, then centred by their centre of mass in 28 x 28
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). Today's pictures also have
paper, shadows and pens of any width.
"""

import io
import os
import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn

from ..base.errors import DataError, ParameterError, check
from ..base.files import as_path, read_bytes
from ..evaluation import infer
from ..runs.folder import pretrained

BOX = 20  # side, in pixels, of the square that a digit is scaled to fit
WORK = 280  # pixels on the longer side of the picture while it is processed
STROKE = 0.12  # minimum stroke width, as a fraction of the box; MNIST's strokes reach it


class Prediction(NamedTuple):
    """What a net makes of a picture; str() gives a bar chart."""

    probabilities: torch.Tensor  # float32 (10,), for the digits 0 to 9
    image: torch.Tensor  # uint8 (28, 28), the net's input

    @property
    def digit(self) -> int:
        """The most probable digit."""
        return int(self.probabilities.argmax())

    def __str__(self):
        return "\n".join(
            f"{digit} {probability:7.2%} {'#' * round(40 * probability)}".rstrip()
            for digit, probability in enumerate(self.probabilities.tolist())
        )


def predict(image, net: nn.Module | None = None, bounded: bool = False) -> Prediction:
    """Classify a picture of a single digit, given in any form that `prepare` takes.

    The default net is `pretrained("steady")`; any other is called as `infer` does, with `bounded`.
    """
    prepared = prepare(image)
    output = infer(pretrained("steady") if net is None else net, prepared, bounded)
    return Prediction(output[0].exp().cpu(), prepared)


def prepare(image) -> torch.Tensor:
    """A picture of a single digit in MNIST's form: light on dark, uint8 (28, 28).

    `image` is a path, a PIL image, or a numpy array or tensor: (H, W), or (H, W, C) with 1, 3 or 4
    channels, 0 to 255 or floats in 0..1. Dark on light or light on dark, of any size, on plain
    paper that may be unevenly lit; a rim, a frame, a line below and a desk around are left out.

    Raises DataError unless it shows exactly one digit.
    """
    from .paper import find_digit  # which needs scipy, so that `import mnist_lib` stays quick

    name, picture = _open(image)
    return torch.from_numpy(_centred(_thick_enough(find_digit(_as_grey(picture), name))))


def _open(image):
    """A name for messages, and the PIL image, rotated as its EXIF data says."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    name, opened = "the picture", image
    if isinstance(image, torch.Tensor | np.ndarray):
        opened = Image.fromarray(_as_bytes(image))
    elif not isinstance(image, Image.Image):
        valid = isinstance(image, str | os.PathLike)
        check("image", image, valid, "a path, a PIL image or an array")
        name = as_path("image", image)
        opened = io.BytesIO(read_bytes(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = opened if isinstance(opened, Image.Image) else Image.open(opened)
            picture = ImageOps.exif_transpose(picture)  # which loads it
            picture = picture.convert("RGB") if picture.mode == "LAB" else picture
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise DataError(f"{name} has over {limit}: shrink it below 1,000 pixels a side") from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a picture Pillow reads: save it as PNG or JPEG") from None
    except Exception as error:  # Pillow's many decoders can raise anything
        raise DataError(f"{name} is a broken picture: {error}") from None
    return name, picture


def _as_bytes(array) -> np.ndarray:
    """An array that Pillow accepts: uint8, (H, W), (H, W, 3) or (H, W, 4)."""
    if isinstance(array, torch.Tensor):  # numpy has no bfloat16
        array = (array.float() if array.is_floating_point() else array).detach().cpu().numpy()
    given = f"{array.dtype}, {array.shape}"
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        if array.dtype.kind in "ui" and 0 <= array.min() <= array.max() <= 255:
            return array.astype(np.uint8)
        if array.dtype.kind in "bf" and 0 <= array.min() <= array.max() <= 1:
            return (255 * array).round().astype(np.uint8)
    expected = "(H, W) or (H, W, C) with C = 1, 3 or 4, 0 to 255 or floats from 0 to 1"
    raise ParameterError(f"an image array must be {expected}, got {given}")


def _as_grey(picture) -> np.ndarray:
    """Grey levels from 0 to 1, WORK pixels on the longer side."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":  # more than 8 bits per pixel
        deep = np.asarray(picture, dtype=np.float32)
        span = np.ptp(deep) or 1.0
        picture = Image.fromarray((255 * (deep - deep.min()) / span).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = np.asarray(picture.getchannel("A"), dtype=np.float32)
        light = np.average(np.asarray(picture.convert("L")), weights=alpha + 1e-6) > 127
        paper = Image.new("RGBA", picture.size, "black" if light else "white")
        picture = Image.alpha_composite(paper, picture)
    picture = picture.convert("L")
    if picture.getextrema() == (0, 1):
        picture = picture.point(lambda value: 255 * value)
    scale = WORK / max(picture.size)
    size = tuple(max(1, round(scale * side)) for side in picture.size)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size, method), dtype=np.float32) / 255


def _thick_enough(ink: np.ndarray) -> np.ndarray:
    """The ink with the strokes of a fine pen widened to STROKE."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(np.pad(ink > 0.5 * ink.max(), 1))[1:-1, 1:-1]
    ridge = inside[(inside == ndimage.maximum_filter(inside, 3)) & (inside > 0)]
    lacking = STROKE * max(ink.shape) - (2 * np.median(ridge) - 1)
    radius = round(lacking / 2)
    if radius < 1:
        return ink
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = y * y + x * x <= radius * radius + 0.5
    return ndimage.grey_dilation(np.pad(ink, radius), footprint=disc)


def _centred(ink: np.ndarray) -> np.ndarray:
    """The ink scaled to fit BOX x BOX, then centred by its centre of mass: uint8 (28, 28)."""
    from PIL import Image
    from scipy import ndimage

    scale = BOX / max(ink.shape)
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    small = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(small) / np.max(small)
    corner = np.rint(13.5 - np.array(ndimage.center_of_mass(small))).astype(int)
    top, left = np.clip(corner, 0, (28 - height, 28 - width))
    canvas = np.zeros((28, 28), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = (255 * small).round()
    return canvas
