"""Images and labels as people bring them: tensors or numpy arrays, of several shapes and types."""

import numpy
import torch

from .errors import ParameterError


def as_images(images, name: str = "images") -> torch.Tensor:
    """Images as uint8 (N, 28, 28), from a tensor or numpy array; also (28, 28) or (N, 1, 28, 28).

    Raises ParameterError for anything else, such as the floats of ToTensor.
    """
    given = _as_tensor(images)
    square = given is not None and given.shape[-2:] == (28, 28)
    if square and given.shape[1:-2] in ((), (1,)) and given.dtype == torch.uint8:
        return given.reshape(-1, 28, 28)
    raise ParameterError(
        f"{name} must be uint8, (N, 28, 28), got {_kind(images)}; images in 0..1, as ToTensor "
        "gives them, become bytes by (255 * images).round().byte()"
    )


def as_labels(labels, count: int, name: str = "labels") -> torch.Tensor:
    """Labels as int64 (N,), from a tensor or numpy array of any integer type.

    Raises ParameterError unless there are `count` of them, from 0 to 9.
    """
    given = _as_tensor(labels)
    whole = given is not None and not (given.is_floating_point() or given.is_complex())
    if not whole or given.dtype == torch.bool or given.shape != (count,):
        raise ParameterError(
            f"{name} must be integers from 0 to 9, ({count},), one an image, got {_kind(labels)}"
        )
    given = given.long()
    if count and not 0 <= given.min() <= given.max() <= 9:
        raise ParameterError(
            f"{name} must be from 0 to 9, got {given.min().item()} to {given.max().item()}"
        )
    return given


def _as_tensor(values) -> torch.Tensor | None:
    if isinstance(values, numpy.ndarray) and values.dtype.kind in "uifb":
        # A copy: it may be read-only, have negative strides or the other byte order.
        native = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(native) if values.dtype.itemsize <= 8 else None
    return values if isinstance(values, torch.Tensor) else None


def _kind(values) -> str:
    if isinstance(values, torch.Tensor | numpy.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')}, {tuple(values.shape)}"
    return f"a {type(values).__name__}"
