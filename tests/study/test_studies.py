"""Studies over seeds: a line a run, stopped and gone on with, never mixed."""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
import time
from functools import partial

import pytest
import torch

from mnist_lib import get_recipe, load_history, load_mnist, load_study, make_net
from mnist_lib.base import download
from mnist_lib.base.errors import DataError, ParameterError, RunError
from mnist_lib.base.files import append_line, lock
from mnist_lib.net import set_seed
from mnist_lib.study import jobs
from mnist_lib.study.__main__ import main
from mnist_lib.study.jobs import job_of
from mnist_lib.study.studies import study
from mnist_lib.study.verify import verify
from mnist_lib.training import train
from tests.conftest import ROOT, wait_for
from tests.runs.killing import FORK, FewImages, die, interrupt, once_there
from tests.test_history import make

RECIPE = get_recipe("assignment", epochs=1)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder of few images, which this process takes for MNIST from the start."""
    folder = FewImages(tmp_path / "mnist")
    monkeypatch.setattr(download, "FILES", folder.md5)
    monkeypatch.setenv("MNIST_DATA", os.fspath(folder))
    return folder


@pytest.fixture
def path(tmp_path, mnist):
    """A study's file, in an empty folder. This process has two threads meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    (tmp_path / "study").mkdir()
    yield tmp_path / "study" / "study.jsonl"
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


@pytest.fixture
def at_once(monkeypatch):
    """Runs are made by this process, not each by one of its own, which takes long to start.

    A list of what else happens before a trained run's line is added.
    """
    meanwhile = []

    def call(function, *args):
        result = function(*args)
        for other in meanwhile:
            other()
        return result

    monkeypatch.setattr(jobs, "own_processes", lambda: contextlib.nullcontext(call))
    return meanwhile


@pytest.fixture
def command(monkeypatch):
    """Calls `python -m mnist_lib.study` with these words, in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["study", *map(str, words)])
        main()

    return call


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


def alone(recipe, seed, data, threads=1):
    """The run that a study is to make, by `train`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    set_seed(seed)
    history = train(make_net(recipe), data, recipe, seed, verbose=False)
    torch.set_num_threads(before)
    return history


@pytest.mark.usefixtures("my_nets")
@pytest.mark.parametrize(
    ("net", "seeds", "processes", "threads", "validation"),
    [("my_nets:TinyNet", [14, 1], 2, 1, False), ("assignment", [14], 1, 2, True)],
)
def test_each_seed_has_its_weights_order_and_fold(
    path, mnist, net, seeds, processes, threads, validation
):
    """Each also has its own process, so that memory left in fragments does not add up."""
    recipe = get_recipe("assignment", epochs=1, net=net)
    histories = study(path, recipe, seeds, processes, threads, validation, mnist)
    assert mnist.processes() == len(seeds)
    for seed, history in zip(seeds, histories, strict=True):
        data = load_mnist().hold_out(seed % 12) if validation else load_mnist()
        run = alone(recipe, seed, data, threads)
        assert losses(history) == losses(run)
        assert 100 < history.record.pop("memory") < 4000
        assert history.record == run.record
        assert (history.source, history.record["threads"]) == (data.source, threads)
    assert sorted(map(losses, load_study(path))) == sorted(map(losses, histories))


def stop_the_study():
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


@pytest.fixture
def started(monkeypatch):
    """The seeds that processes were started for, in order."""
    seeds, own_processes = [], jobs.own_processes

    @contextlib.contextmanager
    def noted():
        with own_processes() as call:
            yield lambda function, job: call(function, seeds.append(job.seed) or job)

    monkeypatch.setattr(jobs, "own_processes", noted)
    return seeds


@pytest.mark.usefixtures("interruptible", "my_nets")
def test_a_study_that_is_stopped_goes_on(path, mnist, started, capsys):
    """The second run stops it in its third epoch, as Stop does in a notebook."""
    recipe = get_recipe("assignment", epochs=3, net="my_nets:TinyNet")
    under_way = path.with_suffix(".unfinished")
    third_epoch = partial(once_there, under_way, "*-seed-5/checkpoint-2.pt", stop_the_study)
    whole = alone(recipe, 5, load_mnist())
    other = FORK.Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(KeyboardInterrupt):
        study(path, recipe, [4, 5, 6], 1, data_dir=FewImages(mnist.folder, {5: third_epoch}))
    assert started == [4, 5], "seed 6 has not begun"
    line = path.read_text()
    assert line.count("\n") == 1
    _, run = sorted(under_way.glob("assignment-my_nets.TinyNet-*-mnist-seed-[456]"))
    assert run.name.endswith("5")
    kept = load_history(run)
    assert len(kept) == 2
    path.write_text(line + line[:-20])  # as if killed while it wrote
    assert "stopped; epochs kept: 5; the same study goes on" in capsys.readouterr().err
    _, again = study(path, recipe, [4, 5], 1, data_dir=mnist)
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
    other.join()


@pytest.mark.parametrize("end", range(15))
def test_half_a_line_is_removed_before_the_next(tmp_path, end):
    path, line = tmp_path / "file", '{"name": "Ω"}\n'.encode()
    path.write_bytes(line + line[:end])
    append_line(path, line.decode())
    whole = end == len(line) - 1  # an editor has left out the last line's end
    assert path.read_bytes() == line * (3 if whole else 2)


def test_a_study_in_utf_16_is_left_as_it_is(tmp_path):
    """PowerShell's `cat a.jsonl b.jsonl > all.jsonl` writes one."""
    path, content = tmp_path / "all.jsonl", "{}\n".encode("utf-16")
    path.write_bytes(content)
    with pytest.raises(RunError, match="it is in UTF-16: save it in UTF-8"):
        append_line(path, "{}\n")
    assert path.read_bytes() == content


def test_finished_runs_are_not_trained_again(path, command, capsys):
    """The command does not train them either. Flags given twice add up; settings have any type."""
    settings = {"epochs": 1, "learning_rate": 0.5, "optimizer": "adam", "nesterov": True}
    recipes = [get_recipe(name, **settings, crop=28) for name in ("fast", "steady")]
    runs = [finished(seed, recipe) for recipe in recipes for seed in (3, 4)]
    del runs[1].record["recipe"]["crop"]  # as in a record older than the field
    runs.append(changed(runs[0], machine="there"))  # as after cat a.jsonl b.jsonl
    path.write_text("".join(run.to_json() for run in runs))
    assert study(path, recipes, [4, 3]) == [runs[n] for n in (1, 0, 3, 2)]
    words = ["epochs=9", *(f"{name}={value}" for name, value in settings.items())]
    words = ["--set", *words, "--set", "crop=28", "--threads", "1", "--recipe", "fast"]
    words += ["--recipe", "steady", "--seeds", "3", "--seeds", "4,", "3-4,3", path.with_suffix("")]
    for processes, said in (("1", ""), ("999", "999 runs of 1 threads compete for")):
        command(*words, "--processes", processes)
        out, err = capsys.readouterr()
        assert out.count("2 seeds") == out.count("seeds") == 2
        assert f"runs to make: 0, {processes} at a time; already in {path}: 4\n" in out
        assert err.startswith(said)
        assert bool(err) is bool(said)
    assert (list(path.parent.iterdir()), load_study(path)) == ([path], runs)


def test_a_run_that_another_study_adds_meanwhile_is_not_added_again(path, at_once, capsys):
    locked = threading.Event()

    def add():
        with lock(path.with_suffix(".unfinished")):
            locked.set()
            time.sleep(0.5)  # the study waits for the lock
            append_line(path, finished(3).to_json())

    at_once += [threading.Thread(target=add).start, locked.wait]
    assert study(path, RECIPE, [3], 1) == load_study(path) == [finished(3)]
    assert "seed 3: not added again" in capsys.readouterr().out
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 5}, r"seeds must be a list of seeds, such as range\(10\), got 5"),
        ({"seeds": "0-9"}, "seed must be a whole number from 0 .*, got '0'"),
        ({"recipes": "fast"}, "recipe must be a Recipe, .*, got 'fast'"),
        ({"validation": "no"}, "validation must be True or False, got 'no'"),
    ],
)
def test_parameters_are_what_they_seem(path, options, said):
    with pytest.raises(ParameterError, match=said):
        study(path, **{"recipes": RECIPE, "seeds": [3]} | options)
    runs = [
        finished(s, dataclasses.replace(RECIPE, crop=crop)) for crop in (20, 24) for s in (3, 4)
    ]
    path.write_text("".join(run.to_json() for run in runs))
    assert study(path, (run.recipe for run in runs), (seed for seed in (3, 4))) == runs


def test_a_reader_that_has_gone_is_one_sentence(path, command, monkeypatch):
    """As after `| head -1`; and Python has nothing to flush at its end."""
    path.write_text(finished(3).to_json())
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w", buffering=1))
    with pytest.raises(SystemExit, match=r"^mnist_lib\.study: stopped$"):
        command(path, "--seeds", "3", "--set", "epochs=1")
    assert sys.stdout is None


def test_a_file_that_is_replaced_meanwhile_is_told(path, at_once):
    """By a copy of another machine, say, which lacks what was there."""
    path.write_text(finished(3).to_json())
    at_once.append(lambda: path.write_text(finished(5).to_json()))
    with pytest.raises(RunError, match=r"study\.jsonl was changed during the study"):
        study(path, RECIPE, [3, 4], 1)


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


def hang(folder):
    (folder / "hangs").touch()
    time.sleep(60)


def study_of_a_run_that_hangs(folder):
    """Two runs at a time: seed 0 ends, and seed 1 hangs once it has its folder."""
    path = folder / "study.jsonl"
    in_training = partial(once_there, path.with_suffix(".unfinished"), "*-seed-1/.lock")
    deeds = {1: partial(in_training, partial(hang, folder))}
    study(path, RECIPE, [0, 1], 2, data_dir=FewImages(folder / "mnist", deeds))


def test_a_study_that_is_killed_leaves_its_lines_and_nothing_running(tmp_path, start):
    code = (
        "import pathlib, tests.study.test_studies as test;"
        f"test.study_of_a_run_that_hangs(pathlib.Path({str(tmp_path)!r}))"
    )
    process = start([sys.executable, "-c", code], cwd=ROOT)
    for file in ("study.jsonl", "hangs"):
        wait_for(tmp_path / file)
    while not (tmp_path / "study.jsonl").read_text().endswith("\n"):
        time.sleep(0.01)  # the line is being written
    process.kill()  # the first process alone
    process.communicate(timeout=50)  # until the last of its processes has ended: soon
    assert [run.record["seed"] for run in load_study(tmp_path / "study.jsonl")] == [0]
    assert len(list((tmp_path / "study.unfinished").glob("*-seed-1"))) == 1


def test_a_killed_run_is_one_sentence(path, mnist):
    path.write_text(finished(0).to_json())
    with pytest.raises(RunError, match=r"a run was killed, .*: once .*, the same command goes on"):
        study(path, RECIPE, [0, 10], 1, data_dir=FewImages(mnist.folder, {10: die}))
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


@pytest.mark.parametrize(
    ("args", "said"),
    [
        *((f"--seeds {bad}", "must be a") for bad in ("a", "3-1", ",", "0,1.5", f"0-{10**30}")),
        *((args, "must be a") for args in ("--seeds 3 a", "--seeds 0-10000", "--set epochs=0")),
        *((f"--verify {n}", "must be a whole number from 1 to 5") for n in (0, 6)),
        ("--verify 3", "line 3 is not a history"),
        ("--verify 4", "no recipe and seed"),
        ("--verify 5", "learnt from other nets"),
        ("--processes 0", "must be a"),
    ],
)
def test_bad_arguments_are_one_sentence(path, args, said, command, capsys):
    path.write_text(
        f"{finished(3).to_json() * 2}\n{make(9900).to_json()}{make(9900, distilled={}).to_json()}"
    )
    with pytest.raises(SystemExit) as caught:
        command(path, *args.split())
    assert said in str(caught.value.code) + capsys.readouterr().err


@pytest.mark.usefixtures("at_once")
def test_a_recipe_that_does_not_fit_the_images_is_refused_as_what_it_is(path):
    with pytest.raises(ParameterError, match=r"^batch_size must be at most 240, .* got 1000$"):
        study(path, dataclasses.replace(RECIPE, batch_size=1000), [3], 1)


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
def test_a_recorded_run_is_made_again(path, command, capsys):
    runs = study(path, dataclasses.replace(RECIPE, epochs=2), [3, 4, 5], 1)
    there = changed(runs[1], machine="there")
    near = [changed(run, n) for n, run in enumerate(runs)]
    far = changed(there, 9)
    for run, others, holds, said in [
        (runs[1], runs, True, f"recorded, {runs[1].final.score} trained again; the same bits in"),
        (changed(runs[1]), runs, False, "NOT the same bits, though the machine is the same"),
        (there, near, True, "again; the bits differ, as machines round differently: there, "),
        (far, near, False, "-9.00 points, NOT within the"),
        (there, [dataclasses.replace(r, source="validation") for r in near], False, "too few"),
        (there, near[:2], False, "too few seeds"),
        (changed(there, resumed=[{"threads": 9}]), near, True, "there, cpu, threads 1, torch "),
        (changed(runs[1], resumed=[{"threads": 9}]), near, True, "; then unknown, unknown, thr"),
    ]:
        found, sentence = verify(run, others, verbose=False)
        assert found is holds
        assert said in sentence
    assert job_of(changed(there, train_images=9)).train_images == 9
    assert job_of(there, data_dir="there").data_dir == "there"
    # The command counts the run itself as one of its recipe's seeds, too.
    for run, end, said in [
        (there, contextlib.nullcontext(), "+0.00 points, within"),
        (changed(runs[1]), pytest.raises(SystemExit, match=r"^1$"), "NOT the same bits"),
    ]:
        path.write_text("".join(r.to_json() for r in (run, *near[:2])))
        with end:
            command(path.with_suffix(""), "--verify", "1")
        out = capsys.readouterr().out
        assert "study.jsonl, line 1: " in out
        assert said in out


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("words", "there", "said"),
    [
        ("--verify 1", "study.jsonl", ""),
        ("--seeds 3 4", "*.unfinished", r"0/38 (?s:.*)\nstopped; nothing is kept yet"),
    ],
)
def test_control_c_is_one_sentence(path, command, capsys, monkeypatch, words, there, said):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (-1, -1))  # no size
    path.write_text(finished(3).to_json())
    with (
        once_there(path.parent, there, interrupt),
        pytest.raises(SystemExit, match=r"^mnist_lib\.study: stopped$"),
    ):
        command(path, *words.split())
    assert re.search(said, capsys.readouterr().err)


def test_a_net_that_only_a_file_names_is_not_imported(path, command, my_nets):
    path.write_text(finished(3, dataclasses.replace(RECIPE, net="my_nets:TinyNet")).to_json())
    said = "net must be of this library or typed by you, .* got 'my_nets:TinyNet'"
    with pytest.raises(ParameterError, match=said):
        study(path, load_study(path)[0].recipe, [3])
    with pytest.raises(SystemExit, match=said):
        command(path, "--verify", "1")
    assert not my_nets.exists()
    with pytest.raises(SystemExit, match=r"^1$"):  # trained, to other bits
        command(path, "--verify", "1", "--net", "my_nets:TinyNet")
    assert my_nets.exists()


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
