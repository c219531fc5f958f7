"""Prepare any picture of a digit the way MNIST's were, and classify it.

MNIST's digits were scaled to fit 20 x 20 pixels, then centred by their centre of mass in 28 x 28
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). Today's pictures also have
paper, shadows and pens of any width.
"""

import io
import itertools
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
CONTRAST = 0.08  # minimum between ink and paper; 1 is black on white
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


def predict(image, net: nn.Module | None = None) -> Prediction:
    """Classify a picture of a single digit, given in any form that `prepare` takes.

    The default net is `pretrained("steady")`; any other is called as `infer` does.
    """
    prepared = prepare(image)
    output = infer(pretrained("steady") if net is None else net, prepared)
    return Prediction(output[0].exp().cpu(), prepared)


def prepare(image) -> torch.Tensor:
    """A picture of a single digit in MNIST's form: light on dark, uint8 (28, 28).

    `image` is a path, a PIL image, or a numpy array or tensor: (H, W), or (H, W, C) with 1, 3 or 4
    channels, uint8 or floats in 0..1. Dark on light or light on dark, of any size, on plain paper
    that may be unevenly lit.

    Raises DataError unless it shows exactly one digit.
    """
    name, picture = _open(image)
    ink = _find_ink(_as_grey(picture), name)
    return torch.from_numpy(_centred(_thick_enough(_cut_out_digit(ink, name))))


def _open(image):
    """A name for messages, and the PIL image."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Image.Image):
        return "the picture", image
    if isinstance(image, torch.Tensor | np.ndarray):
        return "the picture", Image.fromarray(_as_bytes(image))
    check("image", image, isinstance(image, str | os.PathLike), "a path, a PIL image or an array")
    path = as_path("image", image)
    content = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            picture.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise DataError(f"{path} has over {limit}: shrink it below 1,000 pixels a side") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture Pillow can read: save it as PNG or JPEG") from None
    except Exception as error:  # Pillow's many decoders can raise anything
        raise DataError(f"{path} is a broken picture: {error}") from None
    return str(path), picture


def _as_bytes(array) -> np.ndarray:
    """An array that Pillow accepts: uint8, (H, W), (H, W, 3) or (H, W, 4)."""
    array = np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array)
    given = f"{array.dtype}, {array.shape}"
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind in "bf" and 0 <= array.min() <= array.max() <= 1:
            return (255 * array).round().astype(np.uint8)
    expected = "(H, W) or (H, W, C) with C = 1, 3 or 4, uint8 or floats from 0 to 1"
    raise ParameterError(f"an image array must be {expected}, got {given}")


def _as_grey(picture) -> np.ndarray:
    """Grey levels from 0 to 1, WORK pixels on the longer side, rotated as its EXIF data says."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
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
    scale = WORK / max(picture.size)
    size = tuple(max(1, round(scale * side)) for side in picture.size)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size, method), dtype=np.float32) / 255


def _find_ink(grey: np.ndarray, name: str) -> np.ndarray:
    """The amount of ink at each pixel, 0 to 1."""
    from scipy import ndimage

    contrast = ndimage.gaussian_filter(grey - _fit_paper(grey), 1)
    dark, light = -np.quantile(contrast, 0.001), np.quantile(contrast, 0.999)
    if max(dark, light) < CONTRAST:
        raise DataError(f"{name} shows no ink: give a dark digit on light paper, or light on dark")
    return np.clip(contrast / light if light > dark else -contrast / dark, 0, 1)


def _fit_paper(grey: np.ndarray) -> np.ndarray:
    """The paper's brightness at each pixel: a quadratic surface fitted to everything but ink.

    The first fit takes the pixels about as bright as the picture's rim. Each later fit leaves out
    the pixels far from the last surface, which are ink.
    """
    y, x = (np.linspace(-1, 1, side) for side in grey.shape)
    terms = np.polynomial.polynomial.polyvander2d(*np.meshgrid(y, x, indexing="ij"), (2, 2))
    terms = terms[..., [0, 1, 2, 3, 4, 6]]  # those of total degree 2 or less
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    level = np.median(rim)
    values, at = grey[::4, ::4].ravel(), terms[::4, ::4].reshape(-1, 6)  # enough for a fit
    off, near = np.abs(values - level), max(0.25, 1.5 * np.abs(rim - level).mean())
    for _ in range(6):
        fit, *_ = np.linalg.lstsq(at[off <= near], values[off <= near], rcond=None)
        spread = np.median(np.abs(values - at @ fit)[off <= near])
        off, near = np.abs(values - at @ fit), max(4 * spread, 0.02)
    return terms @ fit


def _cut_out_digit(ink: np.ndarray, name: str) -> np.ndarray:
    """The digit's ink, cropped to its bounding box."""
    from scipy import ndimage

    threshold = min(max(_otsu(ink), 0.25), 0.6)
    # Hysteresis (Canny 1986): a hairline belongs to the digit if it touches stronger ink.
    pieces, count = ndimage.label(ink > threshold / 2, np.ones((3, 3)))
    strong = ndimage.maximum(ink, pieces, range(1, count + 1)) > threshold
    areas = np.bincount(pieces.ravel())[1:] * strong
    chosen = areas >= 0.03 * areas.max()  # the rest are specks
    boxes = list(itertools.compress(ndimage.find_objects(pieces), chosen))
    tall = max(rows.stop - rows.start for rows, _ in boxes)
    large = [(rows, columns) for rows, columns in boxes if rows.stop - rows.start > 0.5 * tall]
    large.sort(key=lambda box: box[1].start)
    # A digit may be broken, but its large pieces lie close together, one above the other.
    apart = 0
    for (left_rows, left_columns), (rows, columns) in itertools.pairwise(large):
        gap = max(rows.start, left_rows.start) - min(rows.stop, left_rows.stop)
        apart += columns.start > left_columns.stop or gap > 0.1 * tall
    if apart or len(boxes) > 6:
        raise DataError(f"{name} shows {max(apart + 1, len(boxes))} shapes: cut out a single digit")
    digit = np.isin(pieces, 1 + np.flatnonzero(chosen))
    # Keeps the soft edges of the strokes and drops dirt on the paper.
    ink = np.where(ndimage.binary_dilation(digit, iterations=2), ink, 0)
    ink = np.clip((ink - threshold / 2) / (1 - threshold / 2) * 1.15, 0, 1)
    return ink[ndimage.find_objects(digit.astype(int))[0]]


def _otsu(ink: np.ndarray) -> float:
    """The threshold that best separates ink from paper (Otsu 1979)."""
    counts, edges = np.histogram(ink, 64, (0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum(), (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    return float(middles[np.nanargmax(between)])


def _thick_enough(ink: np.ndarray) -> np.ndarray:
    """The ink with the strokes of a fine pen widened to STROKE."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))[1:-1, 1:-1]
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
