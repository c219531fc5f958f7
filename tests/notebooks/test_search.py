"""What search.ipynb draws and counts: the gains of ideas, and how predictions did."""

import dataclasses
import statistics

import evidence
import matplotlib.pyplot as plt
import predictions
import pytest
import search

from mnist_lib import get_recipe
from tests.test_history import make

IDEAS = {
    "worse": search.Gain(4, -0.03, 0.02, predicted=-0.05),
    "a name so long that it takes a second line": search.Gain(12, 0.02, 0.01),
    "outlier": search.Gain(4, -0.9, 0.1),
}


def test_ideas_are_sorted_with_intervals_and_predictions():
    ax = search.plot_ideas(IDEAS, "recipe `long`", "A title", chosen=("worse",))
    figure = ax.get_figure()
    figure.draw_without_rendering()
    labels = ax.get_yticklabels()
    assert [label.get_text()[:6] for label in labels] == ["a name", "worse", "outlie"]
    assert [label.get_fontweight() for label in labels] == ["normal", "bold", "normal"]
    assert ax.yaxis_inverted()
    places = ax.get_yticks()
    (best, _, (bar,)), (worse, _, _) = ax.containers
    assert best.get_xydata().tolist() == [[0.02, places[0]]]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.02 - 0.02201, 0.02 + 0.02201], 1e-3)
    assert (worse.get_marker(), best.get_marker()) == ("D", "o")
    assert [[-0.05, places[1]]] in [line.get_xydata().tolist() for line in ax.get_lines()]
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["12 folds", "4 folds", "-0.90 ± 0.32", "4 folds"], "the arrow has its number"
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["the base: recipe long", "mean, and its 95% interval", "chosen", "predicted"]
    assert figure.get_suptitle() == "A title"
    label, frame = ax.xaxis.label.get_window_extent(), ax.get_window_extent()
    assert label.width <= frame.width
    plt.close(figure)


@pytest.mark.parametrize(
    ("part", "idea", "predicted"),
    [
        ("mining", "hardest 25%, 7 epochs", 0.02),
        ("mining", "hardest 50%, 4 epochs", -0.02),
        ("mining", "hardest 12.5%, 5 epochs", 99.27 - 99.345),
        ("smoothing", "labels smoothed by 0.1: fast", 0),
        ("small nets, 8,000", "the hardest half", 0.04),
        ("views, the assignment's net", "the same, and its four corners, also turned", None),
    ],
)
def test_predictions_of_the_search_as_gains(part, idea, predicted):
    """In signs, in words, as an accuracy; the last of several; one that was reworded is none."""
    assert search.gains(part, folds=1)[idea].predicted == pytest.approx(predicted)


@pytest.mark.parametrize(
    ("p_values", "found"),
    [([0.01, 0.5, 0.02, 0.03], [True, False, True, True]), ([0.04] * 2, [True] * 2), ([0.06], [0])],
)
def test_benjamini_and_hochberg_by_hand(p_values, found):
    assert search.discoveries(p_values) == found


def test_all_gains_of_the_search_can_be_chance():
    assert search.chance_table().splitlines()[-1] == "| all | 176 | 11 | 11.2 | 47 | 0 | 2 |"


def test_errors_of_the_predictions_without_an_interval():
    signed = predictions.search_errors()["gains with a sign"]
    frontier = predictions.frontier_errors()
    assert (len(signed), sum(error < -1e-6 for error in signed)) == (72, 46)
    assert statistics.fmean(signed) == pytest.approx(-0.037, abs=5e-4)
    assert (statistics.fmean(e * e for e in frontier) ** 0.5) == pytest.approx(0.062, abs=5e-4)


def made(correct, seeds, recipe="steady", source="validation", **fields):
    """A run of one epoch for each seed, as the records have it."""
    record = {"recipe": dataclasses.asdict(get_recipe(recipe, **fields))}
    images = 5_000 if source == "validation" else 10_000
    return [make(correct, images=images, source=source, seed=s, **record) for s in seeds]


def test_a_line_of_predictions_counts_once_all_its_runs_are_there():
    lines = evidence.csv_rows("predictions.csv")
    given_up = {run["idea"] for run in evidence.search_lines() if "patience" in run["search"]}
    known = [row for row in lines if row["recipe"] not in given_up or "folds" not in row["seeds"]]
    assert predictions.outcomes(known, []) == [None] * len(known), "every setting is known"
    cycle = {"schedule": "one_cycle", "learning_rate": 0.15, "warm_up": 0.3}
    moved = {"rotation": 6, "shift": 0.75, "scale": 0.05}
    runs = made(9943, range(10, 29), source="mnist") + made(9944, [29], source="mnist")
    runs += made(4950, range(8)) + made(4940, range(8), averaging=0) + made(4940, range(7), crop=28)
    runs += made(4930, range(8), hardest=1, epochs=3) + made(4950, range(10), "assignment")
    runs += made(4955, range(8), "assignment", **cycle)
    runs += made(4960, range(8), "assignment", **cycle | moved)
    came = zip(known, predictions.outcomes(known, runs), strict=True)
    assert [(row["seeds"], row["recipe"], it.value) for row, it in came if it] == [
        ("10-29", "steady", 99.4305),
        ("10-29", "steady", 1),
        ("folds 0-7", "assignment, one-cycle rate to 0.15", 0.1),
        ("folds 0-7", "assignment, one-cycle rate to 0.15, augmented as steady", 0.1),
        ("folds 0-7", "steady", 99.0),
        ("folds 0-7", "steady, averaging 0", -0.2),
        ("folds 0-7", "steady, 3 epochs of all images", -0.4),
    ]


def test_the_table_says_inside_or_outside():
    table = predictions.predictions_table()
    assert "| small, net p2976, folds 0-3: mean" in table
    assert "| small, net p2976, folds 0-7" not in table, "four runs are not two predictions"
    (line,) = (line for line in table.splitlines() if line.startswith("| fast, seeds 10-29: of 20"))
    assert line.endswith("| 17 (12 to 20) | 16 | -1.000 | inside | yes |")
