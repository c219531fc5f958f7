"""A net as ONNX gives the same numbers without torch. Missing packages are named."""

import sys

import pytest
import torch
import torch.nn as nn

from mnist_lib import ParameterError, export_onnx, get_recipe, infer, pretrained
from mnist_lib.augment import MEAN, STD, Views
from mnist_lib.base.errors import RunError


class Linear(nn.Module):
    """A linear layer that scores a blank image by log-probabilities; a function calls it."""

    def __init__(self, forward):
        super().__init__()
        self.layer, self.way = nn.Linear(784, 10), forward
        nn.init.constant_(self.layer.bias, -torch.tensor(10.0).log())

    def forward(self, x):
        return self.way(self.layer, x.flatten(1) + MEAN / STD)


@pytest.mark.parametrize("kind", ["fast", "views", "double"])
def test_onnx_says_what_torch_says(tmp_path, sample, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = Linear(lambda layer, x: layer(x).double()) if kind == "double" else pretrained("fast")
    net = Views(net, get_recipe("fast", views=4)) if kind == "views" else net.train()
    path = export_onnx(net, tmp_path / "net.onnx")
    assert net.training
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = sample.test_images
    (output,) = session.run(["log_probabilities"], {"images": images.numpy()})
    assert output.dtype == "float32"
    assert (torch.from_numpy(output) - infer(net, images)).abs().max() < 1e-4
    (one,) = session.run(None, {"images": images[:1].numpy()})
    assert one.shape == (1, 10)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda layer, x: layer(x.view(len(x), 784)), "invalid dimensions"),
        (lambda layer, x: layer(x if x.sum() > 0 else -x), "Could not guard"),
        (lambda layer, x: layer(x).bfloat16().sin(), "INVALID_GRAPH"),
        (lambda layer, x: layer(x + torch.rand_like(x)), "1 digits get other scores"),
        (None, "positional"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_net_that_onnx_cannot_hold_is_refused_in_a_sentence(tmp_path, capfd, forward, reason):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    with pytest.raises(ParameterError, match=rf"^net cannot be exported .*\): .*{reason}.*$"):
        export_onnx(Linear(forward) if forward else scripted, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_without_the_packages_one_sentence_says_so(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    with pytest.raises(RunError, match=rf"needs .*{package}.*pip install"):
        export_onnx(pretrained("fast"), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
