"""A net for other programs: ONNX, which runs without torch or this library."""

import importlib.util
import os
import warnings
from pathlib import Path

import torch
import torch.nn as nn

from ..augment import normalize
from ..base.errors import RunError
from ..base.files import as_path, write_file
from ..evaluation import are_logits, device_of, in_mode, log_probabilities, scores


def export_onnx(net: nn.Module, path: str | os.PathLike) -> Path:
    """Write `net` as an ONNX file; returns its path.

    Input: `images`, uint8 (N, 28, 28) for any N; they are normalised inside. Output:
    `log_probabilities`, float32 (N, 10). Needs the extra `onnx` of this package.
    """
    if missing := [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)]:
        packages = " and ".join(missing)
        raise RunError(f"export_onnx needs {packages}: install them with pip install '.[onnx]'")
    path = as_path("path", path)
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    program = _WithNormalization(net, images)
    options = {"input_names": ["images"], "output_names": ["log_probabilities"], "dynamo": True}
    options |= {"dynamic_shapes": ({0: torch.export.Dim("n")},), "external_data": False}

    def export(aside: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about its own internals
            inputs = (images.to(device_of(net)),)
            torch.onnx.export(program, inputs, aside, verbose=False, **options)

    with in_mode(net, training=False):
        write_file(path, export)
    return path


class _WithNormalization(nn.Module):
    """From uint8 images to log-probabilities."""

    def __init__(self, net: nn.Module, images: torch.Tensor):
        super().__init__()
        self.net = net
        self.forward_net = log_probabilities(net, are_logits(scores(net, images)))

    def forward(self, images):
        return self.forward_net(normalize(images))
