"""Your own digit: any picture of one, prepared as MNIST's were, and what a net makes of it.

MNIST's digits were scaled into 20 x 20 pixels, and their centre of mass was put in the middle of
28 x 28 (LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). A picture of today
also has paper, shadows and a pen of any width.
"""

import io
import itertools
import os
import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn

from .errors import DataError, ParameterError
from .evaluation import infer
from .files import as_path, read_bytes
from .run import pretrained

BOX = 20  # side, in pixels, of the square that a digit is scaled into
WORK = 280  # pixels of the longer side that a picture is worked on at
CONTRAST = 0.08  # of ink against paper, at least; 1 is black on white
STROKE = 0.12  # width of a stroke, in sides of the box; MNIST's have it or more


class Prediction(NamedTuple):
    """What a net makes of a picture."""

    probabilities: torch.Tensor  # float32 (10,), of the digits 0 to 9
    image: torch.Tensor  # uint8 (28, 28), what the net saw

    @property
    def digit(self) -> int:
        """The most probable one."""
        return int(self.probabilities.argmax())

    def __str__(self):
        rows = (
            f"{digit} {probability:7.2%} {'#' * round(40 * probability)}".rstrip()
            for digit, probability in enumerate(self.probabilities.tolist())
        )
        return "\n".join(rows)


def predict(image, net: nn.Module | None = None) -> Prediction:
    """The ten probabilities of a picture of one digit, and the picture as the net saw it.

    Without a `net`, `pretrained("steady")`. Takes and raises what `prepare` does, and what `infer`
    raises for the net.
    """
    prepared = prepare(image)
    output = infer(pretrained("steady") if net is None else net, prepared)
    return Prediction(output[0].exp().cpu(), prepared)


def prepare(image) -> torch.Tensor:
    """A picture of one digit as MNIST would hold it: light on dark, uint8 (28, 28).

    `image` is a path, a PIL image, or a numpy array or tensor: (H, W), or (H, W, C) with 1, 3 or 4
    channels, uint8 or floats in 0..1. Dark on light or light on dark, of any size, on paper that is
    plain but may be lit unevenly.

    Raises DataError if no single digit is to be seen, if a file is no picture or far too large;
    RunError if it cannot be read; ParameterError if `image` is none of these.
    """
    name, picture = _opened(image)
    ink = _ink(_grey(picture))
    if ink is None:
        raise DataError(
            f"{name} shows no ink: give a dark digit on light paper, or a light one on dark"
        )
    return torch.from_numpy(_boxed(_thick_enough(_one_digit(ink, name))))


def _opened(image):
    """A name for messages, and the PIL image."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Image.Image):
        return "the picture", image
    if isinstance(image, torch.Tensor | np.ndarray):
        return "the picture", Image.fromarray(_as_bytes(image))
    if not isinstance(image, str | os.PathLike):
        raise ParameterError(
            f"image must be a path, a PIL image or an array, got a {type(image).__name__}"
        )
    path = as_path("image", image)
    content = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            picture.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS / 1e6
        raise DataError(
            f"{path} has more than {limit:.0f} million pixels: make it smaller, some hundred a "
            "side are enough"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture that Pillow reads: save it as PNG or JPEG") from None
    except Exception as error:  # the readers of a hundred formats can raise anything
        raise DataError(f"{path} is a broken picture: {error}") from None
    return str(path), picture


def _as_bytes(array) -> np.ndarray:
    """An array that Pillow takes: uint8, (H, W) or (H, W, 3 or 4)."""
    array = np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array)
    given = f"{array.dtype}, {array.shape}"
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.reshape(array.shape[1:] if array.shape[0] == 1 else array.shape[:-1])
    sized = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    if sized and array.size:
        if array.dtype == bool:
            return array.astype(np.uint8) * 255
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind == "f" and 0 <= array.min() <= array.max() <= 1:
            return (255 * array).round().astype(np.uint8)
    raise ParameterError(
        f"an image's array must be (H, W) or (H, W, 3), uint8 or floats from 0 to 1, got {given}"
    )


def _grey(picture) -> np.ndarray:
    """The picture in grey, 0 to 1, its longer side WORK, turned as its camera says."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":  # of more than 8 bits
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
    side = WORK / max(picture.size)
    size = tuple(max(1, round(side * length)) for length in picture.size)
    smaller = Image.Resampling.BOX if side < 1 else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size, smaller), dtype=np.float32) / 255


def _ink(grey: np.ndarray) -> np.ndarray | None:
    """How much ink is where, 0 to 1; None if there is none."""
    from scipy import ndimage

    off = ndimage.gaussian_filter(grey - _paper(grey), 1)
    dark, light = -np.quantile(off, 0.001), np.quantile(off, 0.999)
    if max(dark, light) < CONTRAST:
        return None
    return np.clip(off / light if light > dark else -off / dark, 0, 1)


def _paper(grey: np.ndarray) -> np.ndarray:
    """How light the paper is, everywhere: a quadratic surface fitted to all that is not ink.

    Begun with what is as light as the picture's rim; what lies far off the surface is ink, and is
    left out of the next fit.
    """
    y, x = (np.linspace(-1, 1, side) for side in grey.shape)
    terms = np.polynomial.polynomial.polyvander2d(*np.meshgrid(y, x, indexing="ij"), (2, 2))
    terms = terms[..., [0, 1, 2, 3, 4, 6]]  # up to the second degree in all
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    level = np.median(rim)
    seen, at = grey[::4, ::4].ravel(), terms[::4, ::4].reshape(-1, 6)  # which is enough to fit
    off, near = np.abs(seen - level), max(0.25, 1.5 * np.abs(rim - level).mean())
    for _ in range(6):
        fit, *_ = np.linalg.lstsq(at[off <= near], seen[off <= near], rcond=None)
        spread = np.median(np.abs(seen - at @ fit)[off <= near])
        off, near = np.abs(seen - at @ fit), max(4 * spread, 0.02)
    return terms @ fit


def _one_digit(ink: np.ndarray, name: str) -> np.ndarray:
    """The ink of the digit alone, cut out. Raises DataError if there are more shapes than one."""
    from scipy import ndimage

    threshold = min(max(_otsu(ink), 0.25), 0.6)
    # Hysteresis (Canny 1986): a hairline belongs to the digit if it hangs on stronger ink.
    pieces, count = ndimage.label(ink > threshold / 2, np.ones((3, 3)))
    strong = ndimage.maximum(ink, pieces, range(1, count + 1)) > threshold
    areas = np.bincount(pieces.ravel())[1:] * strong
    kept = 1 + np.flatnonzero(areas >= 0.03 * areas.max())  # the rest are specks
    boxes = ndimage.find_objects(pieces)
    boxes = [boxes[piece - 1] for piece in kept]
    tall = max(rows.stop - rows.start for rows, _ in boxes)
    large = [(c.start, c.stop, r) for r, c in boxes if r.stop - r.start > 0.5 * tall]
    # A digit may be broken, but its large pieces lie above each other, and close.
    apart = sum(
        right[0] > left[1]
        or max(right[2].start, left[2].start) - min(right[2].stop, left[2].stop) > 0.1 * tall
        for left, right in itertools.pairwise(sorted(large, key=lambda box: box[0]))
    )
    if apart or len(kept) > 6:
        raise DataError(f"{name} shows {max(apart + 1, len(kept))} shapes: cut out a single digit")
    digit = np.isin(pieces, kept)
    # The soft edge of the strokes, without the paper's dirt.
    ink = np.where(ndimage.binary_dilation(digit, iterations=2), ink, 0)
    ink = np.clip((ink - threshold / 2) / (1 - threshold / 2) * 1.15, 0, 1)
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _otsu(ink: np.ndarray) -> float:
    """The threshold that parts ink from paper best (Otsu 1979)."""
    counts, edges = np.histogram(ink, 64, (0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum(), (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    return float(middles[np.nanargmax(between)])


def _thick_enough(ink: np.ndarray) -> np.ndarray:
    """The same with strokes of a fine pen made as wide as MNIST's."""
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


def _boxed(ink: np.ndarray) -> np.ndarray:
    """Scaled into BOX x BOX pixels, its centre of mass in the middle of uint8 (28, 28)."""
    from PIL import Image
    from scipy import ndimage

    scale = BOX / max(ink.shape)
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    small = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(small) / np.max(small)
    centre = ndimage.center_of_mass(small)
    top, left = (
        min(max(round(13.5 - at), 0), 28 - side)
        for at, side in zip(centre, small.shape, strict=True)
    )
    canvas = np.zeros((28, 28), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = (255 * small).round()
    return canvas
