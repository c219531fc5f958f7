"""On all of MNIST, by `make check`: the library's weights have their records' numbers."""

import pytest
import torch

from mnist_lib import evaluate, export_onnx, infer, load_history, load_mnist, machine, pretrained
from mnist_lib.run import PRETRAINED

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def data():
    return load_mnist(source="mnist")


@pytest.mark.parametrize("name", ["assignment", "steady", "fast"])
def test_weights_get_the_recorded_count(data, name):
    history = load_history(PRETRAINED / name)
    _, correct = evaluate(pretrained(name), data)
    off = 0 if machine.rounding() == history.record["machine"] else 1
    assert abs(correct - history.final.correct) <= off


def test_onnx_predicts_the_same_digits(data, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = pretrained("steady")
    session = onnxruntime.InferenceSession(
        export_onnx(net, tmp_path / "net.onnx"), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {"images": data.test_images.numpy()})
    said = infer(net, data.test_images).argmax(dim=1)
    assert torch.equal(torch.from_numpy(output).argmax(dim=1), said)
