"""Plots of runs and seeds: what is drawn, read back from the axes."""

import dataclasses

import frontier
import matplotlib.pyplot as plt
import plots
import pytest
import torch

from mnist_lib import Net, ParameterError, curves, get_recipe, layer_table, logged_runs
from tests.figures.test_pictures import texts, tile
from tests.test_history import make

HISTORY = make(9900, 9950, 9940)


def lines(ax):
    """The points of each line, by its label."""
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.get_lines()}


def test_accuracy_shows_the_authors_runs_target_best_and_last(ax):
    assert curves.plot_accuracy(HISTORY, logged_runs(), ax) is ax
    drawn = lines(ax)
    assert drawn["this run"] == [(1, 99.0), (2, 99.5), (3, 99.4)]
    assert drawn["best 9950/10000 (99.50%)"] == [(2, 99.5)]
    assert drawn["last 9940/10000 (99.40%)"] == [(3, 99.4)]
    assert drawn["the author's run 1"][16] == (17, 99.44)
    assert drawn["the author's run 2"][13] == (14, 99.42)
    assert [99.44, 99.44] in [line.get_ydata() for line in ax.get_lines() if line.get_ls() == ":"]


def test_loss_is_on_a_logarithmic_scale(ax):
    curves.plot_loss(HISTORY, logged_runs(), ax)
    assert lines(ax)["this run"][1:] == [(2, 0.05), (3, 0.05)]
    assert lines(ax)["the author's run 1"][0] == (1, 0.0468)
    assert ax.get_yscale() == "log"


def test_the_sample_is_named_in_every_title():
    figure = curves.plot_curves(make(960, images=1000, source="sample"), logged_runs())
    assert ["SAMPLE" in ax.get_title() for ax in figure.axes] == [True, True]
    plt.close(figure)


def of_recipe(name, *correct, **record):
    """A run of this recipe, batches of 64 in 60,000 images."""
    record = {"recipe": dataclasses.asdict(get_recipe(name)), "train_images": 60_000} | record
    return make(*correct, **record)


def test_luck_has_a_dot_and_a_circle_a_run(ax):
    plots.plot_luck({"a": [HISTORY, make(9930, 9920)], "fast": [make(9945)]}, HISTORY, "Found", ax)
    dots = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    last = [d.get_xdata()[0] for d in dots if d.get_color() == plots.THIS]
    best = [d.get_xdata()[0] for d in dots if d.get_color() == plots.GREY]
    assert (last, best) == ([99.2, 99.4, 99.45, 99.4], [99.3, 99.5, 99.45, 99.5])
    assert [d.get_marker() for d in dots].count("*") == 2
    labels = [label.get_text().splitlines() for label in ax.get_yticklabels()]
    counts = ["0 of 2 end there", "1 of 1 end there", "0 of 1 end there"]
    assert labels == [list(pair) for pair in zip(("a", "fast", "this run"), counts, strict=True)]
    assert ax.get_title() == "Found"


def test_band_is_mean_and_two_deviations_over_passes(ax):
    runs = [of_recipe("fast", 9910, 9950, 9940), of_recipe("fast", 9930, 9930, 9960)]
    plots.plot_band({"fast": runs}, of_recipe("assignment", 9900), "", ax)
    at = [n * 1875 * 64 / 60_000 for n in (1, 2, 3)]
    ours = lines(ax)["fast: mean ± 2 sd of 2 seeds"]
    assert ours == [pytest.approx(point) for point in zip(at, (99.2, 99.4, 99.5), strict=True)]
    assert lines(ax)["this run"] == [(1, 99.0)]
    ends = ax.collections[0].get_datalim(ax.transData).intervaly
    assert (*ends,) == pytest.approx((99.2 - 0.2 * 2**0.5, 99.5 + 0.2 * 2**0.5))


def test_bridge_by_hand(ax):
    """Above the line each row changes the one before, below it `steady`."""
    level = {"assignment": 99.0, "assignment, a": 99.2, "steady, again": 99.4, "steady, b": 99.3}
    level |= {"steady, c": 99.5, "fast": 99.0}
    folds = {name: {n: at + n % 2 / 10 for n in range(12)} for name, at in level.items()}
    folds["steady, c"] |= {0: 99.6, 1: 99.4}
    plots.plot_bridge(folds, "Found", ax)
    assert [text.get_text().splitlines() for text in ax.texts] == [
        ["assignment"],
        ["assignment, a", "+0.20 points (+0.20 to +0.20)"],
        ["steady, again", "+0.20 points (+0.20 to +0.20)"],
        ["steady, b", "-0.10 points (-0.10 to -0.10)"],
        ["steady, c", "+0.09 points (+0.02 to +0.16)"],
    ]
    points = [bar[0].get_xydata()[0].tolist() for bar in ax.containers]
    assert points[1:3] == [[pytest.approx(99.25), 1], [pytest.approx(99.45), 2]]


def test_frontier_is_mean_and_interval_over_parameters(ax):
    def runs(recipe, parameters, *correct):
        return [of_recipe(recipe, 9990, last, parameters=parameters) for last in correct]

    small = runs("small", 998, *[9890] * 5, *[9910] * 5)
    studies = [small, runs("views", 8000, 9950, 9960)]
    others = [{"parameters": 697, "accuracy": 99.03, "sd": None}]
    others += [{"parameters": 997, "accuracy": 98.8, "sd": 0.1}]
    frontier.plot(studies, others, "", ax)
    ours, views, *published = ax.containers
    assert ours[0].get_xydata()[0] == pytest.approx([998, 99.0], rel=0.03)
    margin = 2.262 * 0.1 / 3
    assert ours[2][0].get_segments()[0][:, 1] == pytest.approx([99 - margin, 99 + margin])
    assert (views[0].get_marker(), views[0].get_ydata().item()) == ("s", pytest.approx(99.55))
    (one,), (mean,) = (other[0].get_xydata().tolist() for other in published)
    assert (one, mean) == ([697, 99.03], [997, 98.8])
    assert published[1][2][0].get_segments()[0][:, 1] == pytest.approx([98.7, 98.9])
    ticks = [line.get_ydata().tolist() for line in ax.get_lines() if line.get_marker() == "_"]
    assert ticks.count([99.9]) == 2, "the best epochs' means"
    assert ax.get_xscale() == "log"


def test_calibration_by_hand(ax):
    """A mark and its exact interval a tenth, the number of images below, from the lowest on."""
    probabilities = torch.full((4, 10), 0.01)
    probabilities[range(4), [3, 4, 5, 6]] = torch.tensor([0.91, 0.93, 0.61, 0.63])
    plots.plot_calibration(torch.tensor([3, 4, 5, 0]), {"net": probabilities.log()}, "Found", ax)
    (marks, _, (bars,)) = ax.containers[0]
    assert marks.get_xydata().tolist() == [pytest.approx([62, 50]), pytest.approx([92, 100])]
    ends = [bar[:, 1].tolist() for bar in bars.get_segments()]
    assert ends == [
        pytest.approx([1.258, 98.742], rel=1e-3),
        pytest.approx([15.811, 100], rel=1e-3),
    ]
    assert (marks.get_linestyle(), ax.get_xlim(), ax.get_title()) == ("None", (59, 101), "Found")
    assert [text.get_text() for text in ax.texts] == ["2", "2", "net, n"]


@pytest.mark.filterwarnings("error:.*cannot be shown")  # what `agg` says where there is a display
def test_ax_is_optional_and_nothing_is_shown(ax, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    drawn = curves.plot_loss(HISTORY)
    assert ax is not drawn is plt.gca()
    plt.close(drawn.figure)


def test_the_hardest_are_below_the_line(ax, sample):
    images, labels = sample.train_images[:60], sample.train_labels[:60]
    plots.plot_hard(images, labels, torch.arange(60.0), ax)
    assert torch.equal(tile(ax, 0, 0), images[0])
    assert torch.equal(tile(ax, 2, 0), images[59])
    assert texts(ax)[24:26] == [str(labels[59].item()), str(labels[58].item())]


def test_few_digits_stand_in_two_rows_of_each_kind(ax, sample):
    plots.plot_hard(sample.train_images[:10], sample.train_labels[:10], torch.arange(10.0), ax)
    assert torch.equal(tile(ax, 2, 0), sample.train_images[9])
    assert "any 10 training digits" in ax.get_title()


def test_receptive_fields_are_squares_around_the_middle(ax, sample):
    plots.plot_receptive_fields(layer_table(Net()), sample.train_images[0], ax)
    sides = [32, 28, 24, 16, 14, 10, 6, 5, 3]
    assert [square.get_width() for square in ax.patches] == sides
    assert {square.get_x() + square.get_width() / 2 for square in ax.patches} == {13.5}
    assert texts(ax)[:2] == ["conv6: 32 x 32", "the image: 28 x 28"]
    assert [square.get_linestyle() for square in ax.patches].index(":") == 1


def test_confusion_counts(ax):
    labels, predictions = torch.tensor([0, 0, 0, 7, 9]), torch.tensor([0, 0, 6, 7, 4])
    plots.plot_confusion(labels, predictions, "the SAMPLE", ax)
    drawn = {text.get_position(): text.get_text() for text in ax.texts}
    assert drawn == {(0, 0): "2", (6, 0): "1", (7, 7): "1", (4, 9): "1"}
    assert ax.get_title() == "2 mistakes in 5 test images of the SAMPLE"


def test_augmented_digits_begin_as_they_are(ax, sample):
    recipe = get_recipe("fast")
    plots.plot_augmented(sample.train_images[:2], recipe, ax=ax)
    for row in (0, 1):
        assert (tile(ax, row, 0).int() - sample.train_images[row].int()).abs().max() <= 1
        assert not torch.equal(tile(ax, row, 1), tile(ax, row, 0))
    square = ax.patches[13]
    assert (square.get_width(), square.get_xy()) == (24, (28 + 1.5, 28 + 1.5))


def test_digits_lie_in_order(ax, sample):
    plots.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=3, ax=ax)
    assert ax.get_images()[0].get_array().shape == (56, 84)
    assert torch.equal(tile(ax, 1, 1), sample.train_images[4])
    assert texts(ax) == list("01234")
    assert ax.get_title() == "Digits of MNIST"
    with pytest.raises(ParameterError, match="columns must be a whole number"):
        plots.plot_digits(sample.train_images[:5], sample.train_labels[:5], columns=0, ax=ax)
