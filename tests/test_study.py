"""Studies over seeds: a line a run, stopped and gone on with, never mixed."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from mnist_lib import get_recipe, jobs, load_history, load_study, make_net, set_seed, training
from mnist_lib import study as study_module
from mnist_lib.data import MNIST
from mnist_lib.errors import DataError, ParameterError, RunError
from mnist_lib.files import append_line
from mnist_lib.jobs import _run
from mnist_lib.study import _digest, _setting, main, study, verify

from .conftest import wait_for
from .test_history import make

RECIPE = get_recipe("assignment", epochs=1)
ROOT = Path(__file__).parents[1]


def few_images(*_, **__):
    images = torch.arange(240 * 784).sin().abs().mul(255).byte().view(240, 28, 28)
    labels = torch.arange(240) % 10
    return MNIST(images, labels, images[:100], labels[:100], source="mnist")


def run_on_few(job):
    jobs.load_mnist = few_images
    return _run(job)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A study's file. Its runs are of few images; this process has three threads meanwhile."""
    monkeypatch.setattr(study_module, "load_mnist", few_images)
    monkeypatch.setattr(jobs, "load_mnist", few_images)
    monkeypatch.setattr(jobs, "_run", run_on_few)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield tmp_path / "study.jsonl"
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)


@pytest.fixture
def at_once(monkeypatch):
    """Runs are made by this process, not each by one of its own, which takes long to start."""
    here = nullcontext(lambda function, *args: function(*args))
    monkeypatch.setattr(jobs, "own_processes", lambda: here)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, though a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def finished(seed, recipe=RECIPE, source="mnist"):
    return make(9900, source=source, recipe=dataclasses.asdict(recipe), seed=seed)


def losses(history):
    return [(epoch.test_loss, epoch.last_batch_loss) for epoch in history]


@pytest.mark.parametrize(("processes", "validation"), [(2, False), (1, True)])
def test_each_seed_has_its_weights_order_and_fold(path, processes, validation):
    seeds = [14, 1, 2]
    histories = study(path, RECIPE, seeds, processes, threads=3, validation=validation)
    for seed, history in zip(seeds, histories, strict=True):
        data = few_images().hold_out(seed % 12) if validation else few_images()
        set_seed(seed)
        alone = training.train(make_net(RECIPE), data, RECIPE, seed, verbose=False)
        assert losses(history) == losses(alone)
        assert 100 < history.record.pop("memory") < 4000
        assert history.record == alone.record
        assert (history.source, history.record["threads"]) == (data.source, 3)
    assert sorted(map(losses, load_study(path))) == sorted(map(losses, histories))


def name_process(job):
    run = finished(job.seed, job.recipe)
    return job, dataclasses.replace(run, record=run.record | {"process": os.getpid()})


def test_each_run_has_a_process_of_its_own(path, monkeypatch):
    """So that memory which a run leaves in fragments does not add up."""
    monkeypatch.setattr(jobs, "_run", name_process)
    runs = study(path, RECIPE, [0, 1, 2], processes=1)
    assert len({os.getpid(), *(run.record["process"] for run in runs)}) == 4


def stop_in_third_epoch(job):
    """A run on few images; that of seed 5 once stops the study, as Stop in a notebook does."""
    evaluate = training.evaluate

    def stop(*args):
        if (job.folder / "checkpoint-2.pt").exists():
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
        return evaluate(*args)

    if job.seed == 5 and not job.folder.exists():
        training.evaluate = stop
    return run_on_few(job)


@pytest.mark.usefixtures("interruptible")
def test_a_study_that_is_stopped_goes_on(path, monkeypatch, capsys):
    recipe = dataclasses.replace(RECIPE, epochs=3)
    whole = jobs.Job(recipe, 5).run()
    monkeypatch.setattr(jobs, "_run", stop_in_third_epoch)
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(KeyboardInterrupt):
        study(path, recipe, [4, 5], 1)
    line = path.read_text()
    assert line.count("\n") == 1
    (under_way,) = path.with_suffix(".unfinished").glob("assignment-assignment-*-mnist-seed-5")
    assert (under_way / "checkpoint-2.pt").exists()
    kept = load_history(under_way)
    assert len(kept) == 2
    path.write_text(line + line[:-20])  # as if killed while it wrote
    capsys.readouterr()
    _, again = study(path, recipe, [4, 5], 1)
    out, bar = capsys.readouterr()
    assert "seed 5: goes on after epoch 2" in out
    assert "2/3" in bar
    assert "3/3" in bar
    assert losses(again) == losses(whole)
    assert again.epochs[:2] == kept.epochs, "with their seconds: not trained again"
    assert path.read_text() == line + again.to_json()
    assert list(path.parent.iterdir()) == [path]
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


@pytest.mark.usefixtures("at_once")
def test_one_file_takes_recipes_nets_and_folds(path):
    kept = [finished(3, dataclasses.replace(RECIPE, crop=24)), finished(3, source="validation")]
    kept[0].record["recipe"]["from the future"] = 1
    path.write_text("".join(run.to_json() for run in kept))
    recipes = [RECIPE, dataclasses.replace(RECIPE, net="sprint")]
    alike = [RECIPE, dataclasses.replace(RECIPE, learning_rate=0.02)]  # but for a setting
    assert len(study(path.with_stem("alike"), alike, [3], 1)) == 2
    runs = study(path, recipes, [3, 4], 1)
    assert [(run.record["recipe"]["net"], run.record["seed"]) for run in runs] == [
        *(("assignment", 3), ("assignment", 4)),
        *(("sprint", 3), ("sprint", 4)),
    ]
    assert load_study(path) == kept + runs
    assert study(path, recipes[::-1], [4]) == [runs[3], runs[1]]
    assert load_study(path) == kept + runs


def test_runs_need_the_full_data_set(tmp_path, cache, mirrors):
    with pytest.raises(DataError, match=r"MNIST cannot be had .*mirrors: Not Found"):
        study(tmp_path / "study", RECIPE, [0, 1])
    assert not list(tmp_path.glob("study*"))


def pretend(job):
    """In place of a run: that of seed 0 ends, that of seed 10 is killed, the others take long."""
    if job.seed == 10:
        wait_for(job.folder.parent.with_suffix(".jsonl"))
        os.kill(os.getpid(), signal.SIGKILL)
    if job.seed:
        job.folder.mkdir()
        time.sleep(60)
    return job, finished(job.seed, job.recipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_leaves_its_lines_and_nothing_running(tmp_path, start, number):
    code = (
        "from tests.test_study import few_images, jobs, main, pretend, study_module;"
        "jobs._run, study_module.load_mnist = pretend, few_images; main()"
    )
    args = [str(tmp_path / "study"), "--seeds", "0-9", "--processes", "2"]
    process = start([sys.executable, "-c", code, *args], cwd=ROOT)
    digest = _digest(get_recipe("assignment"))
    name = f"assignment-assignment-{digest}-mnist-seed"
    under_way = [tmp_path / "study.unfinished" / f"{name}-{seed}" for seed in (1, 2)]
    for run in under_way:
        wait_for(run)
    process.send_signal(number)  # to the first process alone, as `kill` does
    _, said = process.communicate(timeout=20)  # until the last of its processes has ended
    if number == signal.SIGINT:
        assert said.endswith("mnist_lib.study: stopped; the same command goes on with it\n")
    assert load_study(tmp_path / "study.jsonl") == [finished(0, get_recipe("assignment"))]
    assert sorted((tmp_path / "study.unfinished").glob("*seed-*")) == under_way


def test_a_killed_run_is_one_sentence(path, monkeypatch):
    monkeypatch.setattr(jobs, "_run", pretend)
    with pytest.raises(RunError, match=r"a run was killed, .*: once .*, the same command goes on"):
        study(path, RECIPE, [0, 10], processes=2)
    assert load_study(path) == [finished(0)]


@pytest.mark.usefixtures("at_once")
def test_files_of_others_stay(path):
    """Beside the study's own, wherever they are; a folder is no study's file."""
    beside, under_way = path.with_suffix(""), path.with_suffix(".unfinished")
    for folder in (beside, under_way):
        folder.mkdir()
        (folder / "mine.txt").touch()
    with pytest.raises(ParameterError, match="study is a folder: name a file"):
        study(beside, RECIPE, [3])
    study(path, RECIPE, [3])
    assert (beside / "mine.txt").exists()
    assert (under_way / "mine.txt").exists()
    assert not list(under_way.glob("*seed*"))


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


def changed(run, correct=0, **record):
    """The run with so many more images right in its last epoch, and other columns."""
    last = dataclasses.replace(run.final, correct=run.final.correct + correct, test_loss=1.0)
    return dataclasses.replace(run, epochs=(*run.epochs[:-1], last), record=run.record | record)


@pytest.mark.usefixtures("at_once")
def test_a_recorded_run_is_made_again(path, monkeypatch, capsys):
    runs = study(path, dataclasses.replace(RECIPE, epochs=2), [3, 4, 5], 1)
    assert verify(runs[1], runs, verbose=False) == (True, ANY)
    there = changed(runs[1], machine="there")
    near = [changed(run, n) for n, run in enumerate(runs)]
    far = changed(there, 9)
    for run, others, holds, said in [
        (changed(runs[1]), runs, False, "NOT the same bits, though the machine is the same"),
        (there, near, True, "points, within the"),
        (far, near, False, "-9.00 points, NOT within the"),
        (there, [dataclasses.replace(r, source="validation") for r in near], False, "too few"),
        (there, near[:2], False, "too few seeds"),
    ]:
        assert verify(run, others, verbose=False) == (holds, ANY)
        path.write_text("".join(r.to_json() for r in (run, *others)))
        monkeypatch.setattr("sys.argv", ["study", str(path), "--verify", "1"])
        # The run itself is one of its recipe's seeds, too.
        told = verify(run, [run, *others], verbose=False)
        if told[0]:
            main()
        else:
            with pytest.raises(SystemExit) as caught:
                main()
            assert caught.value.code == 1
        assert f"study.jsonl, line 1: {told[1]}\n" in capsys.readouterr().out
        assert said in verify(run, others, verbose=False)[1]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (make(9900), "no recipe and seed to train again"),
        (finished(3, source="sample"), "source must be mnist or validation, got 'sample'"),
    ],
)
def test_what_cannot_be_made_again_is_refused(run, said):
    with pytest.raises(ParameterError, match=said):
        verify(run)


@pytest.mark.parametrize("line", ["0", "3"])
def test_a_line_that_is_not_there_is_refused(path, line, monkeypatch):
    path.write_text(finished(3).to_json() * 2)
    monkeypatch.setattr("sys.argv", ["study", str(path), "--verify", line])
    with pytest.raises(SystemExit, match="verify must be a whole number from 1 to 2"):
        main()
