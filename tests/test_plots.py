"""Plots: what is drawn, read back from the axes."""

import dataclasses

import matplotlib
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from mnist_lib import ParameterError, get_recipe, logged_run, normalize, plots

from .test_history import make


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_accuracy_shows_both_runs_target_best_and_final(ax):
    history = make(9900, 9950, 9940)
    assert plots.plot_accuracy(history, logged_run(), ax) is ax
    drawn = lines(ax)
    assert list(drawn["this run"].get_ydata()) == [99.0, 99.5, 99.4]
    assert list(drawn["logged run"].get_ydata())[16] == 99.44
    assert set(drawn["target 99.44%"].get_ydata()) == {99.44}
    assert drawn["best 9950/10000 (99.50%)"].get_xdata() == [2]
    assert drawn["final 9940/10000 (99.40%)"].get_xdata() == [3]
    assert ax.get_title() == "Test accuracy on MNIST"
    assert ax.get_xlim()[1] == 19.5


def test_sample_is_named_in_every_title(ax):
    history = dataclasses.replace(make(960, images=1000), source="sample")
    assert "SAMPLE" in plots.plot_accuracy(history, ax=ax).get_title()
    assert "SAMPLE" in plots.plot_loss(history, ax=ax).get_title()


def test_loss_and_learning_rate(ax):
    plots.plot_loss(make(9900, 9910), logged_run(), ax)
    assert list(lines(ax)["this run"].get_ydata()) == [0.05, 0.05]
    assert lines(ax)["logged run"].get_ydata()[0] == 0.0468
    assert ax.get_yscale() == "log"
    plots.plot_learning_rate(get_recipe("logged"), ax.figure.add_subplot())
    assert set(ax.figure.axes[1].get_lines()[0].get_ydata()) == {0.05}


def test_learning_rate_is_the_schedules(ax):
    plots.plot_learning_rate(get_recipe("fast", epochs=10, warm_up=0.3, first=1, hardest=1), ax)
    (line,) = ax.get_lines()
    peak = line.get_ydata().argmax()
    assert line.get_xdata()[peak] == pytest.approx(3, abs=0.02)
    assert line.get_ydata()[peak] == pytest.approx(get_recipe("fast").learning_rate, rel=0.01)
    assert line.get_xdata()[-1] == pytest.approx(10, abs=0.02)


def test_learning_rate_of_epochs_of_different_lengths(ax):
    """Of 100 and four times 25 steps, half are the first epoch."""
    recipe = get_recipe("fast", epochs=5, warm_up=0.5, first=1, hardest=0.25)
    plots.plot_learning_rate(recipe, ax)
    (line,) = ax.get_lines()
    assert len(line.get_xdata()) == 200
    assert line.get_xdata()[line.get_ydata().argmax()] == pytest.approx(1, abs=0.05)
    assert line.get_xdata()[-1] == pytest.approx(5, abs=0.05)
    assert all(tick % 1 == 0 for tick in ax.get_xticks())


def test_inputs_are_shown_as_the_images_they_were(ax, sample):
    plots.plot_inputs(normalize(sample.train_images[:3]), "as they are", columns=2, ax=ax)
    canvas = ax.get_images()[0].get_array()
    assert (canvas[:28, 28:] == 255 - sample.train_images[1].numpy()).all()
    assert (canvas[28:, :28] == 255 - sample.train_images[2].numpy()).all()
    assert ax.get_title() == "as they are"


def test_confusion_counts(ax):
    labels, predictions = torch.tensor([0, 0, 0, 7, 9]), torch.tensor([0, 0, 6, 7, 4])
    plots.plot_confusion(labels, predictions, "the SAMPLE", ax)
    drawn = {text.get_position(): text.get_text() for text in ax.texts}
    assert drawn == {(0, 0): "2", (6, 0): "1", (7, 7): "1", (4, 9): "1"}
    assert ax.get_title() == "2 mistakes in 5 test images of the SAMPLE"


def test_mistakes_are_the_wrong_ones_most_confident_first(ax, sample):
    labels = torch.tensor([3, 4, 5, 6])
    probabilities = torch.full((4, 10), 0.01)
    for row, (digit, confidence) in enumerate([(3, 0.9), (9, 0.6), (8, 0.8), (0, 0.7)]):
        probabilities[row, digit] = confidence
    plots.plot_mistakes(sample.test_images[:4], labels, probabilities.log(), "the SAMPLE", ax=ax)
    assert ax.get_title().startswith("Mistakes on the SAMPLE, the most confident first")
    assert [text.get_text() for text in ax.texts] == ["5→8 80%", "6→0 70%", "4→9 60%"]


def test_no_mistakes_at_all(ax, sample):
    labels = sample.test_labels[:5]
    certain = torch.nn.functional.one_hot(labels, 10).float().clamp(min=1e-6).log()
    plots.plot_mistakes(sample.test_images[:5], labels, certain, ax=ax)
    assert len(ax.texts) == 0


def test_digits_lie_in_order(ax, sample):
    plots.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=3, ax=ax)
    canvas = ax.get_images()[0].get_array()
    assert canvas.shape == (56, 84)
    assert (canvas[28:, 28:56] == 255 - sample.train_images[4].numpy()).all()
    assert [text.get_text() for text in ax.texts] == list("01234")
    assert ax.get_title() == "Digits of MNIST"
    with pytest.raises(ParameterError, match="columns takes a whole number"):
        plots.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=0, ax=ax)


def test_ax_is_optional_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a plot called show"))
    assert plots.plot_loss(logged_run()) is plt.gca()
    plt.close("all")


def test_curves_are_an_image(tmp_path):
    plots.save_curves(make(9900), tmp_path / "curves.png", logged_run())
    assert plt.imread(tmp_path / "curves.png").shape == (540, 1440, 4)
    assert plt.get_fignums() == [], "no figure of pyplot's is left open"
