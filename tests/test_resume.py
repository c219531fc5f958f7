"""Nothing trained is lost: killed, stopped, moved and damaged runs go on, to the bit."""

import dataclasses
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import mnist_lib
from mnist_lib import ParameterError, RunError, get_recipe, load_history, training
from mnist_lib import checkpoint as checkpoint_module
from mnist_lib.checkpoint import _Damaged, _read
from mnist_lib.files import held, write_file

from .conftest import wait_for
from .killing import RECIPES

ROOT = Path(__file__).parents[1]
RECIPE = get_recipe(  # 4, 3, 3, 3 steps
    "fast", epochs=4, batch_size=16, first=1.0, hardest=0.75
)
NOW = checkpoint_module.FORMAT
ANEW = "choose another folder, or set resume to False, which trains anew and replaces what is there"


@pytest.fixture(scope="module")
def part(sample):
    few = sample.take(64)
    return dataclasses.replace(
        few, test_images=few.test_images[:100], test_labels=few.test_labels[:100]
    )


def run(part, folder=None, recipe=RECIPE, seed=0, verbose=False, **words):
    """The history without its times, and the weights, of a run or of the rest of it."""
    mnist_lib.set_seed(seed)
    net = mnist_lib.make_net(recipe)
    history = mnist_lib.train(net, part, recipe, seed, verbose, folder=folder, **words)
    epochs = [dataclasses.replace(e, seconds=0.0, batches_per_second=0.0) for e in history]
    return epochs, history.record, {k: v.tolist() for k, v in net.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(part):
    return run(part)


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step, error=Stopped):
    """Let training fail at so many-th of its steps; undone by `monkeypatch.undo()`."""
    augment, steps = training.augment, []

    def counted(*words):
        steps.append(step)
        if len(steps) == step:
            raise error
        return augment(*words)

    monkeypatch.setattr(training, "augment", counted)


@pytest.fixture
def stopped(part, tmp_path, monkeypatch):
    """The folder of a run that was stopped in its third epoch of four."""
    stop_at(monkeypatch, 10)
    with pytest.raises(Stopped):
        run(part, tmp_path / "run")
    monkeypatch.undo()
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_runs_end_like_undisturbed_ones(tmp_path, recipe):
    """SIGKILL at random moments and, with the recipe that has most to keep, all through writing."""
    words = [str(tmp_path), recipe, "20", *(["writing"] if recipe == "fast" else [])]
    result = subprocess.run(
        [sys.executable, "-m", "tests.killing", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # forked, as a pool of threads cannot be
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    count = json.loads(result.stdout.splitlines()[-1])
    assert count["at_random"] >= 20
    assert count["writing"] >= (20 if recipe == "fast" else 0)
    assert count["equal"] == count["runs"] > 1


def test_each_epoch_is_on_the_disk_before_the_next(stopped):
    assert names(stopped) == ["checkpoint-1.pt", "checkpoint-2.pt", "history.json"]
    assert len(load_history(stopped)) == 2


def test_a_stopped_run_goes_on_and_shows_itself_whole(part, stopped, undisturbed, capsys):
    assert run(part, stopped, verbose=True) == undisturbed
    out, err = capsys.readouterr()
    assert out.splitlines() == [epoch.test_line() for epoch in load_history(stopped)]
    assert f"{stopped} holds the run's 2 epochs of 4; going on from epoch 3\n" in err
    assert err.count("\n") == 1 + 4, "a bar for each epoch, those of before too"
    assert names(stopped) == ["checkpoint-3.pt", "checkpoint-4.pt", "history.json"]


def test_a_finished_run_is_not_trained_again(part, tmp_path, undisturbed, monkeypatch, capsys):
    assert run(part, tmp_path) == undisturbed
    stop_at(monkeypatch, 1)
    assert run(part, tmp_path, verbose=True) == undisturbed
    out, err = capsys.readouterr()
    assert f"{tmp_path} holds the run's 4 epochs of 4: it is finished, and not trained" in err
    assert len(out.splitlines()) == 4


def test_unless_asked(part, tmp_path, monkeypatch, undisturbed):
    other = dataclasses.replace(RECIPE, epochs=6)
    run(part, tmp_path, recipe=other)
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        run(part, tmp_path, resume=False)
    assert "checkpoint-6.pt" in names(tmp_path), "the old run stays until there is more of the new"
    monkeypatch.undo()
    assert run(part, tmp_path, resume=False) == undisturbed
    assert names(tmp_path) == ["checkpoint-3.pt", "checkpoint-4.pt", "history.json"]


def test_a_run_that_replaces_another_leaves_nothing_of_it(part, tmp_path):
    net = mnist_lib.make_net(RECIPE)
    history = mnist_lib.train(net, part, RECIPE, verbose=False, folder=tmp_path)
    mnist_lib.save_run(tmp_path, history, net)
    run(part, tmp_path, recipe=dataclasses.replace(RECIPE, epochs=1), resume=False)
    assert names(tmp_path) == ["checkpoint-1.pt", "history.json"]


def test_what_is_said_where_a_run_would_be_replaced(part, stopped, monkeypatch, capsys):
    stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(part, stopped, resume=False)
    expected = f"\nstopped; {stopped} is as it was: run again with resume True to go on\n"
    assert capsys.readouterr().err == expected
    monkeypatch.undo()
    stop_at(monkeypatch, 6, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(part, stopped, resume=False)
    expected = f"\nstopped; epoch 1 is kept in {stopped}: run again with resume True to go on\n"
    assert capsys.readouterr().err == expected


def test_stopped_between_checkpoint_and_history(part, tmp_path, monkeypatch, undisturbed):
    """Even where that was the last epoch: the history is then written before all else."""

    def stop(*_):
        raise Stopped

    run(part, tmp_path)
    history = (tmp_path / "history.json").read_text()
    (tmp_path / "checkpoint-4.pt").unlink()
    monkeypatch.setattr(checkpoint_module, "save_history", stop)
    with pytest.raises(Stopped):
        run(part, tmp_path)
    monkeypatch.undo()
    (tmp_path / "history.json").unlink()
    run(part, tmp_path)
    assert run(part, tmp_path) == undisturbed
    assert len(load_history(tmp_path)) == 4
    assert history.splitlines()[:40] == (tmp_path / "history.json").read_text().splitlines()[:40]


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(part, stopped, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(RunError) as caught:
        run(part, stopped)
    assert str(caught.value) == (
        f"{stopped}/checkpoint-2.pt cannot be read: Input/output error; mend that, then run again "
        "to go on"
    )


def test_file_systems_without_locks_or_folders_to_sync(part, tmp_path, monkeypatch, capsys):
    def none(*_, **__):
        raise NotImplementedError

    sync = os.fsync

    def refuse(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(22, "Invalid argument")
        sync(file)

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", none)
    run(part, tmp_path)
    assert names(tmp_path) == ["checkpoint-3.pt", "checkpoint-4.pt", "history.json"]
    assert f"{tmp_path} has no locks: take care that no other run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (
            {"recipe": dataclasses.replace(RECIPE, epochs=5, learning_rate=0.1)},
            "epochs is 4 there, 5 here; learning_rate is 0.15 there, 0.1 here",
        ),
        ({"seed": 3}, "seed is 0 there, 3 here"),
    ],
)
def test_another_run_is_refused(part, stopped, words, differs):
    with pytest.raises(RunError) as caught:
        run(part, stopped, **words)
    assert str(caught.value) == f"{stopped} holds another run: {differs}; {ANEW}"
    assert len(load_history(stopped)) == 2


def test_other_data_are_refused(part, stopped):
    with pytest.raises(RunError, match="number of training images is 64 there, 60 here"):
        run(part.take(60), stopped)
    turned = dataclasses.replace(part, train_images=part.train_images.flip(0))
    with pytest.raises(RunError, match="holds another run: its images are others; choose"):
        run(turned, stopped)


def test_a_history_alone_is_not_overwritten(part, stopped):
    for path in stopped.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(RunError) as caught:
        run(part, stopped)
    expected = f"{stopped} holds the history of a run but no checkpoint to go on from: {ANEW}"
    assert str(caught.value) == expected


def test_another_net_is_refused(part, stopped):
    net = mnist_lib.SprintNet(crop=RECIPE.crop)
    with pytest.raises(RunError, match=r"checkpoint-2\.pt does not fit this run's net and optim"):
        mnist_lib.train(net, part, RECIPE, verbose=False, folder=stopped)


def test_resume_is_a_choice_of_two(part):
    with pytest.raises(ParameterError, match="resume takes True or False, not 'no'"):
        run(part, resume="no")


SOON = 4  # seconds: two, and as much again for a slow machine
TRAIN = """
import sys, mnist_lib
data = mnist_lib.load_mnist(source="sample").take(500)
recipe = mnist_lib.get_recipe("steady", epochs=500, batch_size=50)
mnist_lib.set_seed(0)
mnist_lib.train(mnist_lib.make_net(recipe), data, recipe, folder=sys.argv[1])
"""


def test_control_c(tmp_path, start):
    """Ends soon, in a sentence before Python's own words."""
    process = start([sys.executable, "-c", TRAIN, str(tmp_path)])
    wait_for(tmp_path / "checkpoint-3.pt")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < SOON
    done = int(
        re.search(r"stopped; epochs 1 to (\d+) are kept in .*: run again to go on\n", said)[1]
    )
    assert len(load_history(tmp_path)) in (done, done - 1), "if between the writing of the two"
    assert process.returncode != 0


def test_control_c_goes_on(part, tmp_path, monkeypatch, undisturbed, capsys):
    stop_at(monkeypatch, 6, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(part, tmp_path)
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert said == f"\nstopped; epoch 1 is kept in {tmp_path}: run again to go on\n"
    assert run(part, tmp_path) == undisturbed


def test_stop_in_jupyter(tmp_path):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute(TRAIN.replace("sys.argv[1]", repr(str(tmp_path))))
        wait_for(tmp_path / "checkpoint-3.pt")
        start = time.monotonic()
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)["content"]
        assert time.monotonic() - start < SOON
        assert reply["ename"] == "KeyboardInterrupt"
        assert len(load_history(tmp_path)) >= 2
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_divergence_stops_at_once_and_keeps_what_was_good(part, tmp_path, monkeypatch, undisturbed):
    augment, steps = training.augment, []

    def broken(*words):
        steps.append(None)
        return augment(*words) * (float("nan") if len(steps) == 10 else 1)

    monkeypatch.setattr(training, "augment", broken)
    with pytest.raises(RunError) as caught:
        run(part, tmp_path)
    assert len(steps) == 10, "not a step more"
    rate = training.learning_rates(RECIPE, 13)[9]
    assert str(caught.value) == (
        f"training diverged in epoch 3, batch_id 2, of recipe 'fast': the loss is nan, the "
        f"learning rate there {rate:.3g}; epochs 1 to 2 are kept in {tmp_path}; try a "
        "learning_rate below 0.15"
    )
    assert names(tmp_path) == ["checkpoint-1.pt", "checkpoint-2.pt", "history.json"]
    monkeypatch.undo()
    assert run(part, tmp_path) == undisturbed


def test_divergence_in_the_test_is_noticed(part, monkeypatch):
    monkeypatch.setattr(training, "test", lambda *_: (float("inf"), 10))
    with pytest.raises(
        RunError, match=r"epoch 1, batch_id 3, .* test loss after it is inf, .* not"
    ):
        run(part)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB; its folder, and how to give it more room or none to write."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(words):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", words, "none", folder], capture_output=True
        )

    if shutil.which("mount") is None or mount("size=300k").returncode:
        pytest.skip("mounting takes root")
    yield folder, lambda words: mount(f"remount,{words}")
    subprocess.run(["umount", folder], check=True)


def test_full_disk(part, small_disk, undisturbed):
    folder, remount = small_disk
    with pytest.raises(RunError) as caught:
        run(part, folder)
    assert str(caught.value) == (
        f"{folder}/checkpoint-2.pt cannot be written: No space left on device; epoch 1 is kept "
        f"in {folder}: mend that, then run again to go on"
    )
    assert names(folder) == ["checkpoint-1.pt", "history.json"]
    remount("size=1m")
    assert run(part, folder) == undisturbed


def test_read_only_disk(part, small_disk):
    folder, remount = small_disk
    remount("ro")
    with pytest.raises(RunError) as caught:
        run(part, folder)
    assert str(caught.value) == f"{folder} cannot be written: Read-only file system"
    with pytest.raises(RunError, match="cannot be written: Read-only file system"):
        mnist_lib.run_folder(folder, RECIPE, 0, part)
    remount("rw")


def test_quota(part, stopped, undisturbed):
    """The system's limit on a file's size stands for a quota, for those who are not root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(RunError) as caught:
            run(part, stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == (
        f"{stopped}/checkpoint-3.pt cannot be written: File too large; epochs 1 to 2 are kept in "
        f"{stopped}: mend that, then run again to go on"
    )
    assert run(part, stopped) == undisturbed


def test_folder_of_somebody_else(part, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # to root everything is permitted
    try:
        with pytest.raises(RunError, match="cannot be written: Permission denied"):
            run(part, folder)
    finally:
        if root:
            os.seteuid(0)


def some(size):
    """Places in a file of so many bytes: all near its ends, some between."""
    return [*range(60), *range(60, size - 60, size // 150), *range(size - 60, size)]


def test_a_checkpoint_cut_at_any_byte_or_with_one_changed_is_noticed(stopped, tmp_path):
    content = (stopped / "checkpoint-2.pt").read_bytes()
    bent = tmp_path / "bent.pt"
    _read(stopped / "checkpoint-2.pt")
    for at in some(len(content)):
        bent.write_bytes(content[:at])
        with pytest.raises(_Damaged):
            _read(bent)
        bent.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(_Damaged):
            _read(bent)


def test_the_one_before_is_used_and_that_is_said(part, stopped, undisturbed, capsys):
    newest = stopped / "checkpoint-2.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert run(part, stopped) == undisturbed
    assert capsys.readouterr().err == (
        f"{newest} is damaged (its 5000 bytes are not those that were written); "
        "checkpoint-1.pt is used instead\n"
    )


def test_no_checkpoint_left(part, stopped):
    for path in stopped.glob("checkpoint-*"):
        path.write_bytes(b"")
    with pytest.raises(RunError) as caught:
        run(part, stopped)
    why = "is damaged (its 0 bytes are not those that were written)"
    assert str(caught.value) == (
        f"{stopped}/checkpoint-2.pt {why}; {stopped}/checkpoint-1.pt {why}; no other is there: "
        "remove it, or set resume to False, which trains anew and replaces what is there"
    )


@pytest.mark.parametrize("written", [0, 1, 3])
def test_other_versions(part, tmp_path, monkeypatch, written):
    monkeypatch.setattr(checkpoint_module, "FORMAT", written)
    monkeypatch.setattr(checkpoint_module, "__version__", "7.1")
    run(part, tmp_path)
    monkeypatch.undo()
    with pytest.raises(RunError) as caught:
        run(part, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint-4.pt was written by mnist_lib 7.1 in checkpoint format {written}, "
        f"and mnist_lib {mnist_lib.__version__} reads format 2: finish the run with that version, "
        "or set resume to False, which trains anew and replaces what is there"
    )


def hold(folder, ready):
    with held(folder):
        ready.set()
        time.sleep(60)


def test_two_runs_at_once(part, stopped, undisturbed):
    """The second is refused while the first lives, and not by what it left when it is killed."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    first = spawn.Process(target=hold, args=(stopped, ready))
    first.start()
    assert ready.wait(60)
    with pytest.raises(RunError) as caught:
        run(part, stopped)
    assert str(caught.value) == (
        f"{stopped} is in use by another run: wait for its end, or choose another folder "
        f"(where no other is running, remove {stopped}/.lock)"
    )
    first.kill()
    first.join()
    assert (stopped / ".lock").exists()
    assert run(part, stopped) == undisturbed


def test_clock_that_goes_backwards(part, stopped, undisturbed, monkeypatch):
    os.utime(stopped / "checkpoint-1.pt", (4e9, 4e9))  # "newer" than the second
    clock = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    assert run(part, stopped, verbose=True) == undisturbed
    assert all(epoch.seconds > 0 for epoch in load_history(stopped))


def test_folder_moved_to_another_machine(part, stopped, undisturbed, monkeypatch, capsys):
    moved = Path(shutil.move(stopped, stopped.parent / "elsewhere"))
    here = mnist_lib.environment(torch.device("cpu"))
    there = here | {"processor": "abacus", "torch": "9.9"}
    monkeypatch.setattr(training, "environment", lambda _: there)
    epochs, record, weights = run(part, moved)
    assert (epochs, weights) == undisturbed[::2], "nothing but the name of the machine changed"
    note = {"after_epoch": 2, "compiled": False, "environment": there}
    assert record == undisturbed[1] | {"resumed": [note]}
    assert capsys.readouterr().err == (
        f"{moved}: torch {here['torch']} before, 9.9 now; processor {here['processor']} before, "
        "abacus now: equal to rounding only, not to the bit\n"
    )
    monkeypatch.undo()
    assert run(part, moved)[1] == record, "a finished run is no further move"


def test_compiled_from_here_on_is_noted(part, stopped, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda net: net)
    _, record, _ = run(part, stopped, compiled=True)
    (note,) = record["resumed"]
    assert (record["compiled"], note["compiled"], note["after_epoch"]) == (False, True, 2)
    assert "compiled False before, True now: equal to rounding only" in capsys.readouterr().err


def test_checkpoint_from_a_gpu(part, tmp_path, monkeypatch, undisturbed):
    """Tensors that say they come from cuda:0, and a random state of it, are taken to the CPU."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    states = checkpoint_module.Checkpoints._random_states
    monkeypatch.setattr(
        checkpoint_module.Checkpoints,
        "_random_states",
        lambda self: states(self) | {"cuda": torch.zeros(16, dtype=torch.uint8)},
    )
    stop_at(monkeypatch, 10)
    with pytest.raises(Stopped):
        run(part, tmp_path)
    monkeypatch.undo()
    content = (tmp_path / "checkpoint-2.pt").read_bytes()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(io.BytesIO(content[:-32]), weights_only=True)
    assert run(part, tmp_path) == undisturbed


class Harmful:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (torch.save, lambda file: torch.load(file, weights_only=False)),
        (partial(pickle.dump, protocol=2), pickle.load),
    ],
)
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(part, tmp_path, save, load):
    hurt = tmp_path / "hurt"
    content = io.BytesIO()
    save({"format": 1, "mnist_lib": "1.0.0", "history": Harmful(hurt)}, content)
    folder = tmp_path / "run"
    folder.mkdir()
    digest = hashlib.sha256(content.getvalue()).digest()
    (folder / "checkpoint-1.pt").write_bytes(content.getvalue() + digest)
    with pytest.raises(RunError, match=r"checkpoint-1\.pt is damaged \(no checkpoint of this lib"):
        run(part, folder)
    (folder / "weights.safetensors").write_bytes(content.getvalue())
    with pytest.raises(RunError, match=r"weights\.safetensors is no whole safetensors file"):
        mnist_lib.load_weights(mnist_lib.Net(), folder)
    assert not hurt.exists()
    load(io.BytesIO(content.getvalue()))
    assert hurt.exists(), "it was a real one"


@pytest.mark.parametrize("values", [[], {"format": NOW}, {"format": NOW, "mnist_lib": "1"}])
def test_what_is_no_checkpoint(part, tmp_path, values):
    content = io.BytesIO()
    torch.save(values, content)
    digest = hashlib.sha256(content.getvalue()).digest()
    (tmp_path / "checkpoint-1.pt").write_bytes(content.getvalue() + digest)
    with pytest.raises(RunError, match=r"checkpoint-1\.pt is damaged \(no checkpoint of this lib"):
        run(part, tmp_path)


def test_what_the_net_draws_itself_goes_on(part, tmp_path, monkeypatch):
    def begin():
        mnist_lib.set_seed(0)
        return torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Dropout(),
            torch.nn.Linear(784, 10),
            torch.nn.LogSoftmax(dim=1),
        )

    def stop(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return test(*args)

    recipe = get_recipe("logged", epochs=3, batch_size=16)
    whole = mnist_lib.train(begin(), part, recipe, verbose=False)
    test, calls = training.test, itertools.count(1)
    monkeypatch.setattr(training, "test", stop)
    with pytest.raises(KeyboardInterrupt):
        mnist_lib.train(begin(), part, recipe, verbose=False, folder=tmp_path)
    again = mnist_lib.train(begin(), part, recipe, verbose=False, folder=tmp_path)
    assert again.final.test_loss == whole.final.test_loss


def test_weights_that_cannot_be_loaded(tmp_path, part):
    net = mnist_lib.Net()
    with pytest.raises(RunError, match=r"weights\.safetensors cannot be read: No such file"):
        mnist_lib.load_weights(net, tmp_path)
    history = mnist_lib.train(net, part, get_recipe("logged", epochs=1), verbose=False)
    _, path, _ = mnist_lib.save_run(tmp_path, history, net)
    with pytest.raises(RunError, match="holds the weights of another net than SprintNet"):
        mnist_lib.load_weights(mnist_lib.SprintNet(), tmp_path)
    whole = path.read_bytes()
    for at in some(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(RunError, match="is no whole safetensors file"):
            mnist_lib.load_weights(net, tmp_path)


@pytest.mark.parametrize("name", ["../best", "a/b", "", "x" * 41, ".", None, 5])
def test_a_recipes_name_leads_nowhere(name):
    with pytest.raises(ParameterError, match="a recipe's name takes letters, digits"):
        dataclasses.replace(RECIPE, name=name)


def test_half_written_files_are_swept(part, stopped):
    (stopped / ".part-x").mkdir()
    (stopped / ".part-x" / "checkpoint-3.pt").write_bytes(b"half")
    run(part, stopped)
    assert names(stopped) == ["checkpoint-3.pt", "checkpoint-4.pt", "history.json"]


def test_written_files_are_on_the_disk(tmp_path, monkeypatch):
    """The file before it is renamed, its folder after."""
    done = []
    fsync, replace = os.fsync, os.replace

    def noted(file):
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_file(tmp_path / "file", lambda path: path.write_text("x"))
    assert done == ["file", "rename", "folder"]
