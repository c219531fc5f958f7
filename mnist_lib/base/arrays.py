"""Images and labels as users pass them: tensors or numpy arrays, of several shapes and types."""

import numpy
import torch

from .errors import ParameterError


def as_images(images, name: str = "images") -> torch.Tensor:
    """Tensor or array (28, 28), (N, 28, 28) or (N, 1, 28, 28) as uint8 (N, 28, 28).

    Of any integer type, with values from 0, black, to 255, white.
    """
    tensor = _as_tensor(images)
    shape = torch.Size() if tensor is None else tensor.shape
    square = shape[-2:] == (28, 28) and shape[1:-2] in ((), (1,))
    flat = not square and shape[1:].numel() == 28 * 28
    low, high = _range(tensor) if square or flat else (-1, -1)
    if square and 0 <= low <= high <= 255 and high != 1 and _is_whole(tensor):
        return tensor.to(torch.uint8).reshape(-1, 28, 28)
    pixels, factor = "pixels, before any normalization,", ""
    if low >= 0 and 0 < high <= 1:
        pixels, factor = "images, from 0 to 1,", "255 * "
    end = ".astype('uint8')" if isinstance(images, numpy.ndarray) else ".byte()"
    end += ".reshape(-1, 28, 28)" * flat
    advice = f"{pixels} become bytes by ({factor}images).round(){end}"
    expected = "uint8, (N, 28, 28), black 0 and white 255"
    raise ParameterError(f"{name} must be {expected}, got {type_and_shape(images)}; {advice}")


def as_labels(labels, count: int, name: str = "labels") -> torch.Tensor:
    """`count` labels from 0 to 9 as int64 (N,), from a tensor or array of any integer type."""
    tensor = _as_tensor(labels)
    if tensor is None or not _is_whole(tensor) or tensor.shape != (count,):
        expected = f"integers from 0 to 9, ({count},), one per image"
        raise ParameterError(f"{name} must be {expected}, got {type_and_shape(labels)}")
    low, high = _range(tensor)
    if low < 0 or high > 9:
        raise ParameterError(f"{name} must be from 0 to 9, got {low} to {high}")
    return tensor.long()


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _range(tensor: torch.Tensor) -> tuple[float, float]:
    """The least and the largest value; 0 and 0 if there is none."""
    if not tensor.numel() or tensor.is_meta or tensor.is_complex():
        return 0, 0
    small = tensor.dtype.itemsize == 1 or tensor.is_floating_point()
    low, high = (tensor if small else tensor.long()).aminmax()  # which takes no uint16
    return low.item(), high.item()


def _as_tensor(values) -> torch.Tensor | None:
    if isinstance(values, numpy.ndarray) and values.dtype.kind in "uifb":
        # A copy: the array may be read-only, have negative strides or the other byte order.
        native = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(native) if values.dtype.itemsize <= 8 else None
    return values if isinstance(values, torch.Tensor) else None


def type_and_shape(values) -> str:
    """As in `float32, (5, 10)`; for what is not a tensor or array, its class, as in `a tuple`."""
    if isinstance(values, torch.Tensor | numpy.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')}, {tuple(values.shape)}"
    return f"a {type(values).__name__}"
