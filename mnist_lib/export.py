"""A net for other programs: ONNX, which runs without torch or this library."""

import importlib.util
import os
import warnings
from pathlib import Path

import torch
import torch.nn as nn

from .augment import normalize
from .errors import RunError
from .evaluation import device_of, evaluating, log_probabilities
from .files import as_path, write_file


def export_onnx(net: nn.Module, path: str | os.PathLike) -> Path:
    """Write `net` as an ONNX file; returns its path.

    It takes `images`, uint8 (N, 28, 28) of any N, and returns `log_probabilities`, float32 (N, 10):
    normalisation is inside. By torch's own exporter, which needs the packages of the extra `onnx`.

    Raises RunError if they are missing, or the file cannot be written; what `infer` raises, if the
    net is none for these images.
    """
    if missing := [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)]:
        raise RunError(
            f"export_onnx needs {' and '.join(missing)}: install them with the project, "
            "pip install '.[onnx]'"
        )
    path = as_path("path", path)
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    whole = _Whole(net, images)

    def export(aside: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own ways
            torch.onnx.export(
                whole,
                (images.to(device_of(net)),),
                aside,
                input_names=["images"],
                output_names=["log_probabilities"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )

    with evaluating(net):
        write_file(path, export)
    return path


class _Whole(nn.Module):
    """From images as they are to log-probabilities."""

    def __init__(self, net: nn.Module, images: torch.Tensor):
        super().__init__()
        self.net = net
        self.answer = log_probabilities(net, images)

    def forward(self, images):
        return self.answer(normalize(images))
