"""Plots of runs and seeds: what is drawn, read back from the axes."""

import matplotlib.pyplot as plt
import pytest
import report
import torch

from mnist_lib import curves, logged_runs
from mnist_lib.figures import plots
from tests.test_history import make

HISTORY = make(9900, 9950, 9940)


def lines(ax):
    """The points of each line, by its label."""
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.get_lines()}


def test_accuracy_shows_the_authors_runs_target_best_and_last(ax):
    assert curves.plot_accuracy({"this run": HISTORY}, logged_runs(), ax) is ax
    drawn = lines(ax)
    assert drawn["this run"] == [(1, 99.0), (2, 99.5), (3, 99.4)]
    assert drawn["best 9950/10000 (99.50%)"] == [(2, 99.5)]
    assert drawn["last 9940/10000 (99.40%)"] == [(3, 99.4)]
    assert drawn["the author's run 1"][16] == (17, 99.44)
    assert drawn["the author's run 2"][13] == (14, 99.42)
    assert [99.44, 99.44] in [line.get_ydata() for line in ax.get_lines() if line.get_ls() == ":"]


def test_loss_is_on_a_logarithmic_scale(ax):
    curves.plot_loss({"one": HISTORY, "two": make(9900)}, logged_runs(), ax)
    assert (lines(ax)["one"][1:], lines(ax)["two"]) == ([(2, 0.05), (3, 0.05)], [(1, 0.05)])
    assert lines(ax)["the author's run 1"][0] == (1, 0.0468)
    assert ax.get_yscale() == "log"


def test_the_sample_is_named_in_every_title():
    figure = curves.plot_curves(make(960, images=1000, source="sample"), logged_runs())
    assert ["SAMPLE" in ax.get_title() for ax in figure.axes] == [True, True]
    plt.close(figure)


def test_luck_has_a_dot_and_a_circle_a_run(ax):
    plots.plot_luck({"steady": [HISTORY, make(9930, 9920)], "fast": [make(9945)]}, HISTORY, ax)
    dots = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    last = [d.get_xdata()[0] for d in dots if d.get_color() == plots.THIS]
    best = [d.get_xdata()[0] for d in dots if d.get_color() == plots.GREY]
    assert (last, best) == ([99.2, 99.4, 99.45, 99.4], [99.3, 99.5, 99.45, 99.5])
    assert [d.get_marker() for d in dots].count("*") == 2
    assert [label.get_text() for label in ax.get_yticklabels()] == ["steady", "fast", "this run"]


def test_band_is_mean_and_range(ax):
    plots.plot_band({"steady": [HISTORY, make(9920, 9930, 9960)]}, make(9900), ax)
    assert lines(ax)["this run"] == [(1, 99.0)]
    assert lines(ax)["steady: mean and range of 2 seeds"] == [(1, 99.1), (2, 99.4), (3, 99.5)]
    assert (*ax.collections[0].get_datalim(ax.transData).intervaly,) == (99.0, 99.6)


def test_frontier_is_mean_and_sd_over_parameters(ax):
    def runs(parameters, *correct):
        return [make(9900, last, parameters=parameters) for last in correct]

    studies = [runs(13_322, 9950, 9960), runs(998, 9890), runs(4006, 9944, 9944)]
    others = [{"parameters": 697, "accuracy": 99.03, "sd": None}]
    report.plot_frontier(studies, [*others, {"parameters": 997, "accuracy": 98.8, "sd": 0.1}], ax)
    *published, ours = ax.containers
    assert ours[0].get_xydata().tolist() == [[998, 98.9], [4006, 99.44], [13_322, 99.55]]
    ends = ours[2][0].get_segments()[2][:, 1]
    assert ends == pytest.approx([99.55 - 0.0707, 99.55 + 0.0707], 1e-4)
    (small,), (large,) = (other[0].get_xydata().tolist() for other in published)
    assert (small, large) == ([697, 99.03], [997, 98.8])
    assert published[1][2][0].get_segments()[0][:, 1] == pytest.approx([98.7, 98.9])
    assert ax.get_xscale() == "log"
    (ring,) = (line for line in ax.get_lines() if line.get_label().startswith("4,006: the fewest"))
    assert ring.get_xydata().tolist() == [[4006, 99.44]]


def test_calibration_by_hand(ax):
    probabilities = torch.full((4, 10), 0.01)
    probabilities[range(4), [3, 4, 5, 6]] = torch.tensor([0.91, 0.93, 0.61, 0.63])
    plots.plot_calibration(torch.tensor([3, 4, 5, 0]), {"net": probabilities.log()}, ax)
    assert lines(ax)["net"] == [pytest.approx((62, 50)), pytest.approx((92, 100))]


@pytest.mark.filterwarnings("error:.*cannot be shown")  # what `agg` says where there is a display
def test_ax_is_optional_and_nothing_is_shown(ax, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    drawn = curves.plot_loss({"this run": HISTORY})
    assert ax is not drawn is plt.gca()
    plt.close(drawn.figure)
