"""Pictures of digits: what is drawn, read back from the axes."""

import pytest
import torch

from mnist_lib import Net, ParameterError, get_recipe, layer_table
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


def test_the_hardest_are_below_the_line(ax, sample):
    images, labels = sample.train_images[:60], sample.train_labels[:60]
    pictures.plot_hard(images, labels, torch.arange(60.0), ax)
    assert torch.equal(tile(ax, 0, 0), images[0])
    assert torch.equal(tile(ax, 2, 0), images[59])
    assert texts(ax)[24:26] == [str(labels[59].item()), str(labels[58].item())]


def test_few_digits_stand_in_two_rows_of_each_kind(ax, sample):
    pictures.plot_hard(sample.train_images[:10], sample.train_labels[:10], torch.arange(10.0), ax)
    assert torch.equal(tile(ax, 2, 0), sample.train_images[9])
    assert "any 10 training digits" in ax.get_title()


def test_augmented_digits_begin_as_they_are(ax, sample):
    recipe = get_recipe("fast")
    pictures.plot_augmented(sample.train_images[:2], recipe, ax=ax)
    for row in (0, 1):
        assert (tile(ax, row, 0).int() - sample.train_images[row].int()).abs().max() <= 1
        assert not torch.equal(tile(ax, row, 1), tile(ax, row, 0))
    square = ax.patches[13]
    assert (square.get_width(), square.get_xy()) == (24, (28 + 1.5, 28 + 1.5))


def test_receptive_fields_are_squares_around_the_middle(ax, sample):
    pictures.plot_receptive_fields(layer_table(Net()), sample.train_images[0], ax)
    sides = [32, 28, 24, 16, 14, 10, 6, 5, 3]
    assert [square.get_width() for square in ax.patches] == sides
    assert {square.get_x() + square.get_width() / 2 for square in ax.patches} == {13.5}
    assert texts(ax)[:2] == ["conv6: 32 x 32", "the image: 28 x 28"]
    assert [square.get_linestyle() for square in ax.patches].index(":") == 1


def test_confusion_counts(ax):
    labels, predictions = torch.tensor([0, 0, 0, 7, 9]), torch.tensor([0, 0, 6, 7, 4])
    pictures.plot_confusion(labels, predictions, "the SAMPLE", ax)
    drawn = {text.get_position(): text.get_text() for text in ax.texts}
    assert drawn == {(0, 0): "2", (6, 0): "1", (7, 7): "1", (4, 9): "1"}
    assert ax.get_title() == "2 mistakes in 5 test images of the SAMPLE"


def test_mistakes_are_the_wrong_ones_most_confident_first(ax, sample):
    labels = torch.tensor([3, 4, 5, 6])
    probabilities = torch.full((4, 10), 0.01)
    probabilities[range(4), [3, 9, 8, 0]] = torch.tensor([0.9, 0.6, 0.8, 0.7])
    pictures.plot_mistakes(sample.test_images[:4], labels, probabilities.log(), "the SAMPLE", ax=ax)
    assert "the SAMPLE" in ax.get_title()
    assert texts(ax) == ["5→8\n80%", "6→0\n70%", "4→9\n60%"]
    pictures.plot_mistakes(sample.test_images[:1], labels[:1], probabilities[:1].log(), ax=ax)
    assert len(texts(ax)) == 3, "no mistakes, no captions"
