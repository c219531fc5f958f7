"""Pictures of digits: what is drawn, read back from the axes."""

import torch

from mnist_lib.figures import pictures


def tile(ax, row, column):
    """The digit that is drawn there."""
    canvas = torch.tensor(255 - ax.get_images()[0].get_array())
    return canvas[28 * row : 28 * row + 28, 28 * column : 28 * column + 28]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_mistakes_are_the_wrong_ones_most_confident_first(ax, sample):
    labels = torch.tensor([3, 4, 5, 6])
    probabilities = torch.full((4, 10), 0.01)
    probabilities[range(4), [3, 9, 8, 0]] = torch.tensor([0.9, 0.6, 0.8, 0.7])
    pictures.plot_mistakes(sample.test_images[:4], labels, probabilities.log(), "the SAMPLE", ax=ax)
    assert "the SAMPLE" in ax.get_title()
    assert texts(ax) == ["5→8\n80%", "6→0\n70%", "4→9\n60%"]
    pictures.plot_mistakes(sample.test_images[:1], labels[:1], probabilities[:1].log(), ax=ax)
    assert len(texts(ax)) == 3, "no mistakes, no captions"
