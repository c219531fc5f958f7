"""The number of threads: pinned, kept, or the faster; nothing else of the process is changed."""

import collections
import dataclasses
import time

import joblib
import pytest
import torch

from mnist_lib import ParameterError, check_threads, choose_threads, get_recipe
from mnist_lib.history import save_history
from mnist_lib.runs import threads
from tests.test_history import make

CPU = torch.device("cpu")
QUICK = get_recipe("faster", batch_size=2)
TORCHS = "torch's own number, at most one a core"


class Machine:
    """Three cores, and a clock by which a step takes as long as its number of threads says."""

    def __init__(self):
        self.cores, self.now, self.looks = 3, 0.0, collections.Counter()
        self.step = {1: 2**-7, 3: 2**-8}  # seconds, which a float can add up exactly

    def clock(self):
        threads = torch.get_num_threads()
        self.looks[threads] += 1
        self.now += self.step[threads]
        return self.now

    @property
    def steps(self):
        """How many steps have been timed, by the number of threads."""
        return {threads: looks // 2 for threads, looks in self.looks.items()}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """With four threads so far and none pinned; the real number of threads comes back."""
    machine, before = Machine(), torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "STARTED", 4)
    monkeypatch.setattr(joblib, "cpu_count", lambda: machine.cores)
    monkeypatch.setattr(time, "perf_counter", machine.clock)
    yield machine
    torch.set_num_threads(before)


def choose(given=None, recipe=QUICK, seed=0, folder=None, device=CPU):
    chosen, why = choose_threads(given, recipe, seed, folder, device)
    assert chosen == torch.get_num_threads()
    return chosen, why


@pytest.mark.parametrize(
    ("many", "chosen", "steps"),
    [(2**-8, 3, 11), (2**-7, 1, 11), (2**-5, 1, 6), (11 * 2**-7, 1, 2), (1.0, 1, 1)],
)
def test_the_faster_of_one_thread_and_a_thread_a_core(machine, many, chosen, steps):
    """With more threads, the trial ends when it has taken twice as long as with one."""
    machine.step[3] = many
    took, why = choose()
    assert took == chosen
    assert why == f"a step takes 7.8 ms with 1, {1000 * many:.1f} ms with 3"
    assert machine.steps == {1: 11, 3: steps}


def test_what_pins_it_is_not_measured(machine, monkeypatch, tmp_path):
    save_history(tmp_path / "history.json", make(9900, seed=0, threads=3, recipe=vars(QUICK)))
    assert choose(2, folder=tmp_path) == (2, "as given")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose(folder=tmp_path) == (4, "set by OMP_NUM_THREADS"), "not what was given before"
    assert choose(5)[0] == 5
    assert machine.steps == {}


@pytest.mark.parametrize(
    ("kept", "measured"),
    [
        ({}, False),
        ({"recipe": {k: v for k, v in vars(QUICK).items() if k != "weight_decay"}}, False),
        ({"seed": 1}, True),
        ({"recipe": vars(dataclasses.replace(QUICK, epochs=3))}, True),
        ({"threads": 4}, True),
        ({"threads": "2"}, True),
        ({"threads": 3, "resumed": [{"threads": 3}, {"threads": 2}]}, False),
    ],
)
def test_a_folder_that_holds_the_run_gives_its_number(machine, tmp_path, kept, measured):
    run = {"seed": 0, "threads": 2, "recipe": vars(QUICK)} | kept
    save_history(tmp_path / "history.json", make(9900, **run))
    assert choose(folder=tmp_path)[0] == (3 if measured else 2)
    assert set(machine.steps) == ({1, 3} if measured else set())
    (tmp_path / "history.json").write_text("no history")
    assert choose(folder=tmp_path)[0] == choose(folder=tmp_path / "none")[0] == 3


def test_another_device_and_a_single_core_measure_nothing(machine):
    choose(2)
    machine.cores = 8
    assert choose(device=torch.device("cuda")) == (4, TORCHS)
    machine.cores = 1
    assert choose() == (1, TORCHS)
    assert machine.steps == {}


@pytest.mark.parametrize("given", [0, -1, 257, 1.5, True, "two"])
def test_senseless_numbers(given):
    for call in (lambda: check_threads(given), lambda: choose(given)):
        with pytest.raises(ParameterError, match="threads must be a whole number from 1 to 256"):
            call()


def test_a_net_that_cannot_be_tried_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(threads, "make_net", lambda recipe: torch.nn.Linear(784, 10))
    with pytest.raises(ParameterError, match=r"net cannot take images of shape \(\d+, 1, 28, 28\)"):
        choose()


def test_a_net_without_a_gradient_is_left_to_training(monkeypatch):
    frozen = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).requires_grad_(False)
    monkeypatch.setattr(threads, "make_net", lambda recipe: frozen)
    assert choose()[0] >= 1


@pytest.mark.parametrize("name", ["assignment", "fast", "faster", "views"])
def test_trials_are_real_steps_and_leave_random_numbers_alone(machine, name):
    before = torch.get_rng_state()
    assert choose(recipe=get_recipe(name, batch_size=2))[0] == 3
    assert machine.steps == {1: 11, 3: 11}
    assert torch.equal(torch.get_rng_state(), before)
