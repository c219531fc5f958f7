"""Studies over seeds: resumable, counted by hand, never mixed."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from mnist_lib import (
    DataError,
    Epoch,
    History,
    ParameterError,
    RunError,
    get_recipe,
    load_history,
    logged_run,
    make_net,
    set_seed,
    training,
)
from mnist_lib.files import write_file
from mnist_lib.study import _run, _setting, distance, main, study, summary

from .conftest import wait_for, write
from .test_history import make


def test_finished_runs_are_not_trained_again(tmp_path):
    recipe = get_recipe("logged")
    kept = dataclasses.replace(make(9900), record={"recipe": dataclasses.asdict(recipe)})
    for seed in (3, 4):
        write_file(tmp_path / f"seed-{seed}.json", lambda path: path.write_text(kept.to_json()))
    assert study(tmp_path, recipe, [3, 4], data_dir="/nowhere") == [kept, kept]
    with pytest.raises(ParameterError, match=r"seed-3\.json is a run of another recipe"):
        study(tmp_path, get_recipe("logged", epochs=2), [3])


def test_runs_need_the_full_data_set(tmp_path, idx_files):
    idx_files["train-labels-idx1-ubyte"] = b"half"
    with pytest.raises(DataError, match="is not MNIST's"):
        study(tmp_path / "out", get_recipe("logged"), [0, 1], data_dir=write(tmp_path, idx_files))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_run_is_its_seeds_alone(tmp_path, sample, monkeypatch):
    """What a worker does, here in this process, on the sample: the seed's run and its file."""
    monkeypatch.setattr("mnist_lib.study.load_mnist", lambda *_, **__: sample.take(100))
    recipe = get_recipe("logged", epochs=1)
    threads = torch.get_num_threads()
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    seeds = zip(paths, (5, 6, 5), strict=True)
    runs = [_run((path, recipe, seed, 1, False, None)) for path, seed in seeds]
    torch.set_num_threads(threads)
    assert [load_history(path) for path, _ in runs] == [history for _, history in runs]
    losses = [history.final.test_loss for _, history in runs]
    assert losses[0] == losses[2] != losses[1]
    assert runs[0][1].record["environment"]["threads"] == 1


def test_a_run_that_was_stopped_goes_on(tmp_path, sample, monkeypatch):
    monkeypatch.setattr("mnist_lib.study.load_mnist", lambda *_, **__: sample.take(100))
    recipe, threads = get_recipe("logged", epochs=3), torch.get_num_threads()
    test, tests = training.test, []

    def stop(*words):
        tests.append(None)
        if len(tests) == 3:
            raise KeyboardInterrupt
        return test(*words)

    _, whole = _run((tmp_path / "whole.json", recipe, 5, 1, False, None))
    monkeypatch.setattr(training, "test", stop)
    path = tmp_path / "seed-5.json"
    with pytest.raises(KeyboardInterrupt):
        _run((path, recipe, 5, 1, False, None))
    assert not path.exists()
    assert (tmp_path / "seed-5" / "checkpoint-2.pt").exists()
    _, again = _run((path, recipe, 5, 1, False, None))
    torch.set_num_threads(threads)
    assert len(tests) == 4, "one epoch was left"
    assert [epoch.test_loss for epoch in again] == [epoch.test_loss for epoch in whole]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["seed-5.json", "whole.json"]


def slow(job):
    """In the place of a run."""
    job[0].touch()
    time.sleep(60)


SLOW = """
import mnist_lib.study, tests.test_study
mnist_lib.study._run = tests.test_study.slow
mnist_lib.study.load_mnist = lambda *_, **__: None
mnist_lib.study.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_leaves_nothing_running(tmp_path, start, number):
    words = [str(tmp_path), "--seeds", "0-9"]
    process = start([sys.executable, "-c", SLOW, *words], cwd=Path(__file__).parents[1])
    wait_for(tmp_path / "seed-0.json")
    wait_for(tmp_path / "seed-1.json")
    begun = time.monotonic()
    process.send_signal(number)  # to the first process alone, as `kill` does
    _, said = process.communicate(timeout=60)  # until the last of its processes has ended
    assert time.monotonic() - begun < 20
    if number == signal.SIGINT:
        assert "mnist_lib.study: stopped; the same words go on with it" in said
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_control_c_is_one_sentence(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_lib.study.study", stop)
    monkeypatch.setattr("sys.argv", ["study", str(tmp_path)])
    with pytest.raises(SystemExit, match="stopped; the same words go on with it"):
        main()


@pytest.mark.parametrize(
    "words", [["--seeds", "a"], ["--seeds", "3-1"], ["--set", "epochs=0"], ["--processes", "0"]]
)
def test_bad_words_are_one_sentence(tmp_path, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study", str(tmp_path), *words])
    with pytest.raises(SystemExit) as caught:
        main()
    said = str(caught.value.code) + capsys.readouterr().err
    assert "takes a" in said


def test_an_old_record_without_later_fields_is_the_same_recipe(tmp_path):
    old = {"name": "logged", "epochs": 19, "batch_size": 32, "learning_rate": 0.05}
    kept = dataclasses.replace(make(9900), record={"recipe": old})
    write_file(tmp_path / "seed-0.json", lambda path: path.write_text(kept.to_json()))
    assert study(tmp_path, get_recipe("logged"), [0], data_dir="/nowhere") == [kept]


def test_validation_and_test_are_not_mixed(tmp_path, sample, monkeypatch):
    monkeypatch.setattr("mnist_lib.study.load_mnist", lambda *_, **__: sample.take(240))
    recipe = get_recipe("logged", epochs=1)
    threads = torch.get_num_threads()
    _path, history = _run((tmp_path / "seed-13.json", recipe, 13, 1, True, None))
    torch.set_num_threads(threads)
    assert (history.source, history.images) == ("validation", 20)
    assert history.record["train_images"] == 220
    assert study(tmp_path, recipe, [13], validation=True) == [history]
    with pytest.raises(ParameterError, match=r"seed-13\.json is a run of another recipe or test"):
        study(tmp_path, recipe, [13])


def test_each_seed_has_its_weights_its_order_and_its_fold(tmp_path, sample, monkeypatch):
    part = sample.take(240)
    monkeypatch.setattr("mnist_lib.study.load_mnist", lambda *_, **__: part)
    recipe = get_recipe("logged", epochs=1)
    threads = torch.get_num_threads()
    for seed in (1, 14):
        _, history = _run((tmp_path / f"seed-{seed}.json", recipe, seed, threads, True, None))
        held_out = part.hold_out(seed % 12)
        set_seed(seed)
        alone = training.train(make_net(recipe), held_out, recipe, seed, verbose=False)
        assert history.final.test_loss == alone.final.test_loss
        assert history.record["data"] == held_out.digest


def test_a_killed_run_is_one_sentence(tmp_path, monkeypatch, sample):
    monkeypatch.setattr("mnist_lib.study.load_mnist", lambda *_, **__: sample)
    monkeypatch.setattr("mnist_lib.study._run", killed)
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(RunError, match=r"a run was killed, .*: the same words go on with it"):
        study(tmp_path, get_recipe("logged"), [0])
    assert other.is_alive(), "the caller's own process is none of the study's"
    other.kill()


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("0.5", 0.5), ("adam", "adam"), ("False", False), ("True", True)]
)
def test_settings(text, value):
    name, read = _setting(f"field={text}")
    assert (name, read, type(read)) == ("field", value, type(value))


def test_summary_counts_the_seeds_that_end_on_the_target():
    text = summary([make(9950, 9944), make(9944, 9943)])
    assert text.splitlines()[0] == "2 seeds, 1 of them with at least 99.44% at the last epoch"


def test_summary_by_hand():
    text = summary([make(9900, 9940), make(9920, 9930), make(9910, 9920)])
    assert text.splitlines()[0] == "3 seeds, 0 of them with at least 99.44% at the last epoch"
    assert "final                                99.300 ± 0.100" in text
    assert "best epoch (chosen on the test set)  99.300 ± 0.100" in text
    assert "mean of last five                    99.200 ± 0.050" in text


def test_distance_is_zero_from_itself_and_counts_by_hand():
    logged = logged_run()
    assert distance([logged], logged) == (0, 0)
    shifted = History(
        tuple(
            Epoch(**(dataclasses.asdict(e) | {"correct": e.correct - 10, "test_loss": 0.1}))
            for e in logged
        )
    )
    accuracy, loss = distance([shifted], logged)
    assert accuracy == pytest.approx(0.1)
    expected = (sum((0.1 - e.test_loss) ** 2 for e in logged) / 19) ** 0.5
    assert loss == pytest.approx(expected)
    assert distance([logged, shifted], logged)[0] == pytest.approx(0.05), "the mean"
