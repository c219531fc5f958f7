"""Every figure in the README and the records' text, computed again from the records."""

import re
import statistics
from pathlib import Path

import pytest

from mnist_lib import load_history, logged_run
from mnist_lib.study import distance

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks" / "records"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CANDIDATES = {
    "SGD 0.005, momentum 0.9": "sgd-0.005",
    "SGD 0.01, momentum 0.9": "sgd-0.01",
    "SGD 0.02, momentum 0.9": "sgd-0.02",
    "**SGD 0.05, momentum 0.9**": "sgd-0.05",
    "SGD 0.1, momentum 0.9": "sgd-0.1",
    "SGD 0.1, no momentum": "sgd-0.1-m0",
    "Adam 0.001": "adam-0.001",
}


def candidate(folder):
    return [load_history(path) for path in sorted((RECORDS / "candidates" / folder).iterdir())]


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_table(name):
    runs = candidate(CANDIDATES[name])
    accuracy, loss = distance(runs, logged_run())
    means = [
        statistics.mean(run.epochs[0].accuracy for run in runs),
        statistics.mean(run.best.accuracy for run in runs),
        statistics.mean(run.final.accuracy for run in runs),
    ]
    row = [name, str(len(runs)), f"{accuracy:.3f}", f"{loss:.4f}", *(f"{x:.2f}" for x in means)]
    text = (RECORDS / "README.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(row)} |" in text


def test_the_chosen_recipe_is_the_nearest_in_accuracy():
    nearest = min(CANDIDATES.values(), key=lambda name: distance(candidate(name), logged_run())[0])
    assert (
        candidate(nearest)[0].record["recipe"]
        == load_history(RECORDS / "logged-seed0").record["recipe"]
    )


def test_how_many_touched_the_target():
    runs = [run for name in CANDIDATES.values() for run in candidate(name)]
    touched = sum(run.first_to_reach(9944) is not None for run in runs)
    ended = sum(run.final.correct >= 9944 for run in runs)
    assert (len(runs), len(CANDIDATES), touched, ended) == (14, 7, 3, 0)
    assert "Among 14 more recorded runs" in README
    assert "seven optimisers), three touched it at some epoch and none ended on it" in README


def test_readme_table():
    logged, ours = logged_run(), load_history(RECORDS / "logged-seed0")
    assert ours.record["seed"] == 0
    best = f"best {ours.best.correct}/{ours.images}, {ours.best.epoch}th"
    assert ours.first_to_reach(9944) is None
    seconds, theirs = (statistics.mean(epoch.seconds for epoch in run) for run in (ours, logged))
    for row in (
        "| parameters, fewer than 20,000 | 13,322 | 13,322 | yes |",
        f"| {logged.first_to_reach(9944).epoch}th of {len(logged)} | never; {best} | **no** |",
        f"| {logged.final.score} | {ours.final.score} | **no** |",
        f"| {logged.mean_of_last_five:.3f}% | {ours.mean_of_last_five:.3f}% | below the log's |",
        f"| {theirs:.0f} (Colab GPU) | {seconds:.0f} (two cores of an AMD EPYC) |",
    ):
        assert row in README
    assert ours.record["environment"]["threads"] == 2


def test_readme_speed_is_the_benchmarks():
    (ratio,) = re.findall(r"ratio ([\d.]+)", (RECORDS / "benchmark.txt").read_text())
    assert f"[{ratio} times as fast](notebooks/records/benchmark.txt)" in README
