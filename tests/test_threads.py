"""The number of threads: pinned, kept, or the faster; nothing else of the process is changed."""

import dataclasses
import itertools
import time

import joblib
import pytest
import torch

from mnist_lib import ParameterError, check_threads, choose_threads, get_recipe, threads
from mnist_lib.history import save_history

from .test_history import make

CPU, FAST = torch.device("cpu"), get_recipe("fast")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Of eight cores, with four threads so far and none pinned; the real number afterwards."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "STARTED", 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def measured(monkeypatch):
    """The trials asked for; `measured.seconds` has a step's by the number of threads."""

    def trial(recipe, count, most=None):
        trial.asked.append((recipe.name, count, most))
        return trial.seconds[count]

    trial.seconds, trial.asked = {1: 0.008, 8: 0.005}, []
    monkeypatch.setattr(threads, "step_seconds", trial)
    return trial


def choose(given=None, recipe=FAST, seed=0, folder=None, device=CPU):
    chosen, why = choose_threads(given, recipe, seed, folder, device)
    assert chosen == torch.get_num_threads()
    return chosen, why


@pytest.mark.parametrize(("many", "chosen"), [(0.005, 8), (0.008, 1), (0.8, 1)])
def test_the_faster_of_one_thread_and_a_thread_a_core(measured, many, chosen):
    measured.seconds[8] = many
    took, why = choose()
    assert took == chosen
    assert why == f"a step takes 8.0 ms with 1, {1000 * many:.1f} ms with 8"
    assert measured.asked == [("fast", 1, None), ("fast", 8, pytest.approx(2 * 11 * 0.008))]


def test_what_pins_it_is_not_measured(measured, monkeypatch, tmp_path):
    save_history(tmp_path / "history.json", make(9900, seed=0, threads=3, recipe=vars(FAST)))
    assert choose(2, folder=tmp_path) == (2, "as given")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose(folder=tmp_path) == (4, "set by OMP_NUM_THREADS"), "not what was given before"
    assert choose(5)[0] == 5
    assert measured.asked == []


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ({}, 0),
        ({"recipe": {k: v for k, v in vars(FAST).items() if k != "views"}}, 0),
        ({"seed": 1}, 2),
        ({"recipe": vars(dataclasses.replace(FAST, epochs=3))}, 2),
        ({"threads": 16}, 2),
        ({"threads": "3"}, 2),
        ({"threads": 2, "resumed": [{"threads": 2}, {"threads": 3}]}, 0),
    ],
)
def test_a_folder_that_holds_the_run_gives_its_number(measured, tmp_path, kept, asked):
    run = {"seed": 0, "threads": 3, "recipe": vars(FAST)} | kept
    save_history(tmp_path / "history.json", make(9900, **run))
    assert choose(folder=tmp_path)[0] == (8 if asked else 3)
    assert len(measured.asked) == asked


def test_a_folder_without_a_run(measured, tmp_path):
    (tmp_path / "history.json").write_text("no history")
    assert choose(folder=tmp_path)[0] == 8
    assert choose(folder=tmp_path / "none")[0] == 8


def test_another_device_and_a_single_core_measure_nothing(measured, monkeypatch):
    choose(2)
    assert choose(device=torch.device("cuda")) == (4, "torch's own number, at most one a core")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    assert choose() == (1, "torch's own number, at most one a core")
    assert measured.asked == []


@pytest.mark.parametrize("given", [0, -1, 257, 1.5, True, "two"])
def test_senseless_numbers(given):
    for call in (lambda: check_threads(given), lambda: choose(given)):
        with pytest.raises(ParameterError, match="threads must be a whole number from 1 to 256"):
            call()


@pytest.mark.parametrize("name", ["assignment", "fast", "sprint", "views"])
def test_trials_are_real_steps_and_leave_random_numbers_alone(monkeypatch, name):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    before = torch.get_rng_state()
    chosen, why = choose(recipe=get_recipe(name))
    assert chosen in (1, 2)
    assert why.startswith("a step takes")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_that_takes_too_long_is_stopped(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))  # a step takes a second
    assert threads.step_seconds(FAST, 1, most=3) == 1
    assert next(clock) == 6, "three steps"
