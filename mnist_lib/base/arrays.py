"""Images and labels as users pass them: tensors or numpy arrays, of several shapes and types."""

import numpy
import torch

from .errors import ParameterError


def as_images(images, name: str = "images") -> torch.Tensor:
    """A tensor or array of uint8, (28, 28), (N, 28, 28) or (N, 1, 28, 28), as (N, 28, 28)."""
    tensor = _as_tensor(images)
    square = tensor is not None and tensor.shape[-2:] == (28, 28)
    if square and tensor.shape[1:-2] in ((), (1,)) and tensor.dtype == torch.uint8:
        return tensor.reshape(-1, 28, 28)
    raise ParameterError(
        f"{name} must be uint8, (N, 28, 28), got {_describe(images)}; images in 0..1, as ToTensor "
        "returns them, become bytes by (255 * images).round().byte()"
    )


def as_labels(labels, count: int, name: str = "labels") -> torch.Tensor:
    """`count` labels from 0 to 9 as int64 (N,), from a tensor or array of any integer type."""
    tensor = _as_tensor(labels)
    whole = tensor is not None and not (tensor.is_floating_point() or tensor.is_complex())
    if not whole or tensor.dtype == torch.bool or tensor.shape != (count,):
        expected = f"integers from 0 to 9, ({count},), one per image"
        raise ParameterError(f"{name} must be {expected}, got {_describe(labels)}")
    tensor = tensor.long()
    if count and not 0 <= tensor.min() <= tensor.max() <= 9:
        raise ParameterError(f"{name} must be from 0 to 9, got {tensor.min()} to {tensor.max()}")
    return tensor


def _as_tensor(values) -> torch.Tensor | None:
    if isinstance(values, numpy.ndarray) and values.dtype.kind in "uifb":
        # A copy: the array may be read-only, have negative strides or the other byte order.
        native = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(native) if values.dtype.itemsize <= 8 else None
    return values if isinstance(values, torch.Tensor) else None


def _describe(values) -> str:
    if isinstance(values, torch.Tensor | numpy.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')}, {tuple(values.shape)}"
    return f"a {type(values).__name__}"
