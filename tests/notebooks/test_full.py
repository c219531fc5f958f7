"""On all of MNIST, by `make check`: the library's weights have their records' numbers."""

import pytest

from mnist_lib import evaluate, load_history, load_mnist, pretrained
from mnist_lib.base import machine
from mnist_lib.runs.folder import PRETRAINED, trained_names

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def data():
    return load_mnist(source="mnist")


@pytest.mark.parametrize("name", trained_names())
def test_weights_get_the_recorded_count(data, name):
    history = load_history(PRETRAINED / name)
    _, correct = evaluate(pretrained(name), data)
    off = 0 if machine.rounding() == history.record["machine"] else 1
    assert abs(correct - history.final.correct) <= off
