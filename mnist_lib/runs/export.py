"""A net for other programs: ONNX, which runs without torch or this library."""

import contextlib
import importlib.util
import io
import os
import warnings
from pathlib import Path

import torch
import torch.nn as nn

from ..augment import normalize
from ..base.errors import ParameterError, RunError
from ..base.files import as_path, write_file
from ..data import load_sample
from ..evaluation import device_of, in_mode, infer


def export_onnx(net: nn.Module, path: str | os.PathLike) -> Path:
    """Write `net` as an ONNX file; returns its path.

    Input: `images`, uint8 (N, 28, 28) for any N; they are normalised inside. Output:
    `log_probabilities`, float32 (N, 10). Needs the extra `onnx` of this package. Raises
    ParameterError unless real digits get the same scores from ONNX as from torch.
    """
    packages = ("onnx", "onnxscript", "onnxruntime")
    if missing := " and ".join(name for name in packages if not importlib.util.find_spec(name)):
        raise RunError(f"export_onnx needs {missing}: install them with pip install '.[onnx]'")
    path, images = as_path("path", path), load_sample().test_images[:130]
    expected = infer(net, images, bounded=True).float().cpu()
    options = {"input_names": ["images"], "output_names": ["log_probabilities"], "dynamo": True}
    options |= {"dynamic_shapes": ({0: torch.export.Dim("n")},), "verbose": False}
    try:
        hushed = contextlib.redirect_stderr(io.StringIO())
        with in_mode(net, training=False), warnings.catch_warnings(), hushed:
            warnings.simplefilter("ignore")  # the exporter's, about its own internals
            inputs = (images[:2].to(device_of(net)),)
            program = torch.onnx.export(_FromImages(net), inputs, **options)
        for count in (1, 3, 130):
            (output,) = program(images[:count])
            if not output.allclose(expected[:count], atol=0.02):
                raise ValueError(f"{count} digits get other scores than from torch")
    except Exception as error:  # torch and onnxruntime raise many kinds
        reason = str(error.__cause__ or error).partition("\n")[0]
        causes = "a fixed batch, from len(x), a branch on data, bfloat16 or torch.jit inside?"
        raise ParameterError(f"net cannot be exported to ONNX ({causes}): {reason}") from error
    write_file(path, lambda aside: program.save(aside, external_data=False))
    return path


class _FromImages(nn.Sequential):
    """From uint8 images to log-probabilities; log_softmax leaves those of the net as they are."""

    def forward(self, images):
        return self[0](normalize(images)).float().log_softmax(dim=1)
