"""Studies over seeds: a line a run, stopped and gone on with, never mixed."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
import torch

from mnist_lib import get_recipe, load_study, make_net, set_seed, training
from mnist_lib import study as study_module
from mnist_lib.data import MNIST
from mnist_lib.errors import DataError, ParameterError, RunError
from mnist_lib.files import append_line
from mnist_lib.machine import pool
from mnist_lib.study import _run, _setting, main, study

from .conftest import wait_for
from .test_history import make

RECIPE = get_recipe("assignment", epochs=1)


def few_images(*_, **__):
    images = torch.arange(240 * 784).sin().abs().mul(255).byte().view(240, 28, 28)
    labels = torch.arange(240) % 10
    return MNIST(images, labels, images[:100], labels[:100], source="mnist")


def run_on_few(job):
    study_module.load_mnist = few_images
    return _run(job)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A study's file. Its runs are of few images; this process has three threads meanwhile."""
    monkeypatch.setattr(study_module, "load_mnist", few_images)
    monkeypatch.setattr(study_module, "_run", run_on_few)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield tmp_path / "study.jsonl"
    torch.set_num_threads(threads)


def finished(seed, recipe=RECIPE, source="mnist"):
    return make(9900, source=source, recipe=dataclasses.asdict(recipe), seed=seed)


def losses(history):
    return [(epoch.test_loss, epoch.last_batch_loss) for epoch in history]


@pytest.mark.parametrize(
    ("workers", "validation"), [(pool, False), (lambda _: ThreadPoolExecutor(1), True)]
)
def test_each_seed_has_its_weights_order_and_fold(path, monkeypatch, workers, validation):
    monkeypatch.setattr(study_module, "pool", workers)
    seeds = [14, 1, 2]
    histories = study(path, RECIPE, seeds, threads=3, validation=validation)
    for seed, history in zip(seeds, histories, strict=True):
        data = few_images().hold_out(seed % 12) if validation else few_images()
        set_seed(seed)
        alone = training.train(make_net(RECIPE), data, RECIPE, seed, verbose=False)
        assert losses(history) == losses(alone)
        assert history.record == alone.record
        assert (history.source, history.record["threads"]) == (data.source, 3)
    assert sorted(load_study(path), key=histories.index) == histories


def test_a_study_that_is_stopped_goes_on(path, monkeypatch):
    monkeypatch.setattr(study_module, "pool", ThreadPoolExecutor)
    recipe = dataclasses.replace(RECIPE, epochs=3)
    (whole,) = study(path.with_stem("whole"), recipe, [5], 1)
    calls = [DEFAULT] * 5 + [KeyboardInterrupt, DEFAULT]  # one epoch is left then
    evaluate = Mock(wraps=training.evaluate, side_effect=calls)
    monkeypatch.setattr(training, "evaluate", evaluate)
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(KeyboardInterrupt):
        study(path, recipe, [4, 5], 1)
    line = path.read_text()
    assert line.count("\n") == 1
    assert (path.with_suffix("") / "seed-5" / "checkpoint-2.pt").exists()
    path.write_text(line + line[:-20])  # as if killed while it wrote
    _, again = study(path, recipe, [4, 5], 1)
    assert evaluate.call_count == len(calls)
    assert losses(again) == losses(whole)
    assert path.read_text() == line + again.to_json()
    assert sorted(path.parent.iterdir()) == [path, path.with_stem("whole")]
    assert other.is_alive(), "the caller's own process is none of the study's"
    other.kill()


@pytest.mark.parametrize("end", range(15))
def test_half_a_line_is_removed_before_the_next(tmp_path, end):
    path, line = tmp_path / "file", '{"name": "Ω"}\n'.encode()
    path.write_bytes(line + line[:end])
    append_line(path, line.decode())
    whole = end == len(line) - 1  # an editor has left out the last line's end
    assert path.read_bytes() == line * (3 if whole else 2)


def test_finished_runs_are_not_trained_again(path, monkeypatch, capsys):
    runs = [finished(3), finished(4)]
    del runs[1].record["recipe"]["crop"]  # as in a record older than the field
    path.write_text("".join(run.to_json() for run in runs))
    assert study(path, RECIPE, [4, 3]) == runs[::-1]
    args = [str(path.with_suffix("")), "--set", "epochs=1", "--seeds", "3-4", "--threads", "1"]
    for processes, said in (("1", ""), ("999", "999 processes of 1 threads each want 999 cores")):
        monkeypatch.setattr("sys.argv", ["study", *args, "--processes", processes])
        main()
        out, err = capsys.readouterr()
        assert "2 seeds" in out
        assert err.startswith(said)
        assert bool(err) is bool(said)
    assert (list(path.parent.iterdir()), load_study(path)) == ([path], runs)


@pytest.mark.parametrize(
    ("kept", "validation", "differs"),
    [
        (finished(3, get_recipe("assignment", epochs=2)), False, "epochs is 2 there, 1 here"),
        (finished(3, dataclasses.replace(RECIPE, crop=24)), False, "crop is 24 there, 28 here"),
        (finished(3), True, "of mnist there, of validation here"),
        (finished(3, source="validation"), False, "of validation there, of mnist here"),
    ],
)
def test_another_study_is_refused(path, kept, validation, differs):
    path.write_text(kept.to_json())
    with pytest.raises(ParameterError, match=rf"study\.jsonl, line 1, .*{differs}"):
        study(path, RECIPE, [5], validation=validation)


def test_runs_need_the_full_data_set(tmp_path, cache, mirrors):
    with pytest.raises(DataError, match=f"could not be downloaded .*{mirrors.url}one/"):
        study(tmp_path / "study", RECIPE, [0, 1])
    assert [file.name for file in (tmp_path / "study").iterdir()] == [".lock"]


def pretend(job):
    """In place of a run: that of seed 0 ends, that of seed 10 is killed, the others take long."""
    folder, recipe, seed, *_ = job
    if seed == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed:
        folder.touch()
        time.sleep(60)
    return folder, finished(seed, recipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_leaves_its_lines_and_nothing_running(tmp_path, start, number):
    code = (
        "from tests.test_study import few_images, main, pretend, study_module as module;"
        "module._run, module.load_mnist = pretend, few_images; main()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "study"), "--seeds", "0-9"]
    process = start(command, cwd=Path(__file__).parents[1])
    under_way = [tmp_path / "study" / f"seed-{seed}" for seed in (1, 2)]
    for run in under_way:
        wait_for(run)
    process.send_signal(number)  # to the first process alone, as `kill` does
    _, said = process.communicate(timeout=20)  # until the last of its processes has ended
    if number == signal.SIGINT:
        assert said == "mnist_lib.study: stopped; the same command goes on with it\n"
    assert load_study(tmp_path / "study.jsonl") == [finished(0, get_recipe("assignment"))]
    assert sorted((tmp_path / "study").glob("seed-*")) == under_way


def test_a_killed_run_is_one_sentence(path, monkeypatch):
    monkeypatch.setattr(study_module, "_run", pretend)
    with pytest.raises(RunError, match=r"a run was killed, .*: the same command goes on"):
        study(path, RECIPE, [0, 10], processes=1)
    assert load_study(path) == [finished(0)]


@pytest.mark.parametrize("args", ["--seeds a", "--seeds 3-1", "--set epochs=0", "--processes 0"])
def test_bad_arguments_are_one_sentence(tmp_path, args, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["study", str(tmp_path / "study"), *args.split()])
    with pytest.raises(SystemExit) as caught:
        main()
    assert "must be a" in str(caught.value.code) + capsys.readouterr().err


@pytest.mark.parametrize("value", [1, 0.5, "adam", False, True])
def test_settings(value):
    assert repr(_setting(f"field={value}")) == repr(("field", value))


@pytest.mark.parametrize("content", ["hello", '[{"my": "data"}]'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    file = tmp_path / "mine.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match="line 1 is not a history"):
        study(file, RECIPE, [0])
    assert file.read_text() == content
    append_line(file, "{}\n")
    assert file.read_text() == f"{content}\n{{}}\n"
