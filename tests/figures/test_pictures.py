"""Pictures of digits: what is drawn, read back from the axes."""

import pytest
import torch

from mnist_lib import ParameterError
from mnist_lib.figures import pictures


def tile(ax, row, column):
    """The digit that is drawn there."""
    canvas = torch.tensor(255 - ax.get_images()[0].get_array())
    return canvas[28 * row : 28 * row + 28, 28 * column : 28 * column + 28]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_digits_lie_in_order(ax, sample):
    pictures.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=3, ax=ax)
    assert ax.get_images()[0].get_array().shape == (56, 84)
    assert torch.equal(tile(ax, 1, 1), sample.train_images[4])
    assert texts(ax) == list("01234")
    assert ax.get_title() == "Digits of MNIST"
    with pytest.raises(ParameterError, match="columns must be a whole number"):
        pictures.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=0, ax=ax)


def test_mistakes_are_the_wrong_ones_most_confident_first(ax, sample):
    labels = torch.tensor([3, 4, 5, 6])
    probabilities = torch.full((4, 10), 0.01)
    probabilities[range(4), [3, 9, 8, 0]] = torch.tensor([0.9, 0.6, 0.8, 0.7])
    pictures.plot_mistakes(sample.test_images[:4], labels, probabilities.log(), "the SAMPLE", ax=ax)
    assert "the SAMPLE" in ax.get_title()
    assert texts(ax) == ["5→8\n80%", "6→0\n70%", "4→9\n60%"]
    pictures.plot_mistakes(sample.test_images[:1], labels[:1], probabilities[:1].log(), ax=ax)
    assert len(texts(ax)) == 3, "no mistakes, no captions"
