"""A net as ONNX gives the same numbers without torch. Missing packages are named."""

import sys

import pytest
import torch

from mnist_lib import export_onnx, get_recipe, infer, pretrained
from mnist_lib.augment import Views
from mnist_lib.base.errors import RunError


@pytest.mark.parametrize("views", [1, 4])
def test_onnx_says_what_torch_says(tmp_path, sample, views):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = pretrained("fast").train()
    net = net if views == 1 else Views(net, get_recipe("fast", views=4))
    path = export_onnx(net, tmp_path / "net.onnx")
    assert net.training
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = sample.test_images
    (output,) = session.run(["log_probabilities"], {"images": images.numpy()})
    assert (torch.from_numpy(output) - infer(net, images)).abs().max() < 1e-4
    (one,) = session.run(None, {"images": images[:1].numpy()})
    assert one.shape == (1, 10)


def test_without_the_packages_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not there
    with pytest.raises(RunError, match=r"needs .*onnxscript.*pip install"):
        export_onnx(pretrained("fast"), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
