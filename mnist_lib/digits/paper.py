"""Find a digit in a picture: its paper, and what is ink of rims, frames, lines and desks."""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from ..base.errors import DataError

CONTRAST = 0.08  # minimum between ink and paper; 1 is black on white
RIM = 0.1  # maximum width of a rim, as a fraction of the side


class _Find(NamedTuple):
    """What may be a digit. Lengths are in pixels."""

    ink: np.ndarray  # 0 to 1, cropped to its bounding box
    mask: np.ndarray  # where it is in the picture
    size: int  # the longer side
    shapes: int
    thick: float  # half the width of the widest stroke
    alone: bool  # nothing was left out


def find_digit(grey: np.ndarray, name: str) -> np.ndarray:
    """The ink of the only digit, from 0 to 1, cropped to its bounding box.

    Raises DataError, about the picture `name`, unless `grey` (H, W), 0 to 1, shows one digit.
    """
    find = None
    if np.ptp(grey) > CONTRAST:
        grey = _without_rim(grey)
        # If the digit is one piece with a frame, the second look cuts thin connections.
        find = _best_find(grey, 0.5) or _best_find(grey, 1)
    if not find:
        raise DataError(f"{name} shows no ink but a rim, frames and specks: cut out a single digit")
    if find.shapes > 1:
        raise DataError(f"{name} shows {find.shapes} shapes: cut out a single digit")
    return find.ink


def _without_rim(grey: np.ndarray) -> np.ndarray:
    """The picture inside a rim of another brightness."""
    light, widths = grey >= _otsu(grey), []
    for side in _sides(light):
        share = side[: max(1, int(RIM * len(side)))].mean(axis=1)
        share = share if share[0] > 0.5 else 1 - share  # of pixels like the outermost row's
        width = (share > 0.85).argmin()
        widths.append(width + 3 if share[width : width + 3].min() < 0.3 else 0)
    top, bottom, left, right = widths
    return grey[top : len(grey) - bottom, left : grey.shape[1] - right]


def _best_find(grey: np.ndarray, hairline: float) -> _Find | None:
    """What stands alone on paper like the rim's, or what is likeliest to be the digit."""
    rim = np.concatenate([side[0] for side in _sides(grey)])
    contrast = _contrast(grey, rim)
    find = _look(contrast, hairline)
    if find and find.alone:
        return find
    whole = _look(contrast, hairline, cropped=True)
    if whole and whole.shapes > 1:
        whole = None
    # A thumb at the rim is thicker than the digit; a piece of a cropped digit is not thinner.
    if whole and find and (2 * find.thick > whole.thick or find.size < 0.35 * whole.size):
        find = None
    # The rim may be a desk: the lighter and the darker part of the picture may be the paper.
    light = grey >= _otsu(grey)
    for paper in (grey[light], grey[~light]):
        other = _look(_contrast(grey, paper), hairline) if paper.size else None
        if other and (not whole or _lies_on(whole, other)):
            find = max(find or other, other, key=lambda find: find.size)
    return find or whole


def _contrast(grey: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """How much each pixel differs from a surface like the pixels `paper`; ink is positive."""
    contrast = ndimage.gaussian_filter(grey - _fit_paper(grey, paper), 1)
    lighter = np.quantile(contrast, 0.999) > -np.quantile(contrast, 0.001)
    return contrast if lighter else -contrast


def _fit_paper(grey: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """The paper's brightness at each pixel: a quadratic surface fitted to everything but ink.

    The first fit takes the pixels about as bright as `paper`. Each later fit leaves out the pixels
    far from the last surface, which are ink.
    """
    y, x = (np.linspace(-1, 1, side) for side in grey.shape)
    terms = np.polynomial.polynomial.polyvander2d(*np.meshgrid(y, x, indexing="ij"), (2, 2))
    terms = terms[..., [0, 1, 2, 3, 4, 6]]  # those of total degree 2 or less
    level = np.median(paper)
    values, at = grey[::4, ::4].ravel(), terms[::4, ::4].reshape(-1, 6)  # enough for a fit
    off = np.abs(values - level)
    near = max(0.25, 1.5 * np.abs(paper - level).mean(), off.min())
    for _ in range(6):
        fit, *_ = np.linalg.lstsq(at[off <= near], values[off <= near], rcond=None)
        spread = np.median(np.abs(values - at @ fit)[off <= near])
        off, near = np.abs(values - at @ fit), max(4 * spread, 0.02)
    return terms @ fit


def _look(contrast: np.ndarray, hairline: float, cropped: bool = False) -> _Find | None:
    """The ink left without rims, frames and lines; if `cropped`, what touches the rim stays."""
    contrast, left_out = contrast.copy(), np.zeros(contrast.shape, bool)
    least = max(CONTRAST, 0.25 * contrast.max())  # fainter ink is the edge of what is left out
    while (strength := np.quantile(contrast, 0.999)) > least:
        ink = np.clip(contrast / strength, 0, 1)
        threshold = min(max(_otsu(ink), 0.25), 0.6)
        # Hysteresis (Canny 1986): a hairline belongs to the digit if it touches stronger ink.
        pieces, count = ndimage.label(ink > threshold * hairline, np.ones((3, 3)))
        strong = np.where(ink > 0.999 * threshold, pieces, 0)
        cores = ndimage.find_objects(strong, max_label=count)
        areas = np.bincount(pieces.ravel())[1:] * [core is not None for core in cores]
        large = np.flatnonzero(areas >= 0.03 * areas.max())  # the rest are specks
        boxes = np.array([[[s.start, s.stop] for s in cores[n]] for n in large]).swapaxes(1, 2)
        rim = None if cropped else ink.shape
        foreign = [_is_foreign(box, boxes, rim) for box in boxes]
        if not any(foreign):
            return _measure(ink, threshold, pieces, 1 + large, left_out, cropped)
        gone = np.isin(pieces, 1 + large[foreign])
        left_out |= ndimage.binary_dilation(gone, iterations=3)
        contrast[left_out] = 0
    return None


def _is_foreign(box: np.ndarray, others: np.ndarray, rim: tuple | None) -> bool:
    """Whether a piece touches the rim, encloses another or is a line above or below one.

    A box is two corners, [[top, left], [bottom, right]].
    """
    if rim and (box[0].min() == 0 or (box[1] == rim).any()):
        return True
    (height, width), middle = box[1] - box[0], box[:, 0].mean()
    starts, stops = others[:, 0], others[:, 1]
    tall, wide = (stops - starts).T
    encloses = ((box[0] < starts) & (stops < box[1])).all(axis=1) & (tall > 0.3 * height)
    flat = (height < tall) & (width > np.maximum(4 * height, wide - 1))
    beside = (starts[:, 0] <= middle) & (middle < stops[:, 0])
    return (encloses | (flat & ~beside)).any()


def _measure(ink, threshold, pieces, chosen, left_out, cropped) -> _Find | None:
    """The chosen pieces as one find, or None if they are paper, a desk or a frame."""
    digit = np.isin(pieces, chosen)
    # Ink is thinner than the paper around it; what a digit encloses is not.
    thick, room = (_thickness(part) for part in (digit, ~(digit | left_out)))
    box = ndimage.find_objects(digit.astype(int))[0]
    if cropped:
        at_rim = [side[0].mean() for side in _sides(digit)]
        wrong = not 0 < sum(at_rim) < 2 or max(at_rim) > 0.9
    else:
        wrong = thick > room or _is_sheet(digit)
    if wrong or _is_frame(digit[box]):
        return None
    # Keeps the soft edges of the strokes and drops dirt on the paper.
    ink = np.where(ndimage.binary_dilation(digit, iterations=2), ink, 0)[box]
    ink = np.clip((ink - threshold / 2) / (1 - threshold / 2) * 1.15, 0, 1)
    shapes = _count_shapes(ink > 0.2, len(chosen))
    return _Find(ink, digit, max(ink.shape), shapes, thick, not left_out.any())


def _count_shapes(strong: np.ndarray, pieces: int) -> int:
    """How many shapes: 1 for a digit, even a broken one, unless large parts of it stand apart."""
    labels, count = ndimage.label(strong, np.ones((3, 3)))
    parts = [np.nonzero(labels == n) for n in range(1, count + 1)]
    tall = max((np.ptp(y) for y, _ in parts), default=0) + 1
    large = [part for part in parts if np.ptp(part[0]) + 1 > 0.5 * tall]
    large.sort(key=lambda part: part[1].min())
    apart = 0
    for (y, x), (v, u) in itertools.pairwise(large):
        gap = max(y.min(), v.min()) - min(y.max(), v.max()) - 1
        # A line separates them, upright or, if they stand beside each other, slanted.
        slants = np.linspace(-0.6, 0.6, 25) if -gap > 0.25 * tall else [0]
        beside = any((x + slant * y).max() < (u + slant * v).min() for slant in slants)
        apart += gap > 0.1 * tall or beside
    return max(apart + 1, pieces) if apart or pieces > 6 else 1


def _is_frame(shape: np.ndarray) -> bool:
    """Whether a shape that fills its box has three straight sides and is not full."""
    edge = 1 + max(shape.shape) // 40
    straight = [side[:edge].any(axis=0).mean() > 0.85 for side in _sides(shape)]
    return sum(straight) > 2 and shape.mean() < 0.75


def _is_sheet(shape: np.ndarray) -> bool:
    """Whether a shape is a blob or, its holes filled, a rectangle at any angle; not a stroke."""
    full = ndimage.binary_fill_holes(shape)
    y, x = np.nonzero(full)
    turned = (x + 1j * y) * np.exp(1j * np.deg2rad(np.arange(0, 90, 5)))[:, None]
    least = (np.ptp(turned.real, axis=1) * np.ptp(turned.imag, axis=1)).min()
    filled = full.sum() > 0.88 * least or shape.sum() > 0.9 * _hull(shape)
    return filled and _thickness(np.pad(full, 1)) > 0.2 * max(np.ptp(y), np.ptp(x))


def _lies_on(sheet: _Find, find: _Find) -> bool:
    """Whether a find lies on what is a sheet of paper, not in the hole of a digit."""
    full = ndimage.binary_fill_holes(sheet.mask | find.mask)
    large = find.size > 0.25 * sheet.size and _thickness(full) > 3.5 * find.thick
    return find.shapes == 1 and large and full.sum() > 0.93 * _hull(full)


def _thickness(shape: np.ndarray) -> float:
    """The largest distance from a pixel in a shape to its edge."""
    return ndimage.distance_transform_edt(shape).max()


def _hull(shape: np.ndarray) -> float:
    """The area of a shape's convex hull."""
    y, x = np.nonzero(shape)
    corners = np.concatenate([(y + a, x + b) for a in (0, 1) for b in (0, 1)], axis=1)
    return ConvexHull(corners.T).volume


def _sides(image: np.ndarray) -> tuple:
    """Views of an image that begin at its top, bottom, left and right."""
    return image, image[::-1], image.T, image.T[::-1]


def _otsu(values: np.ndarray) -> float:
    """The threshold that best separates ink from paper (Otsu 1979)."""
    counts, edges = np.histogram(values, 64, (0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum(), (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    return float(middles[np.nan_to_num(between).argmax()])
