"""Nothing trained is lost: stopped, moved and damaged runs go on, to the bit."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import resource
import shutil
import time
from dataclasses import replace
from functools import partial
from unittest.mock import DEFAULT, Mock

import pytest
import torch
from torch import nn

import mnist_lib
from mnist_lib import RunError, checkpoint, get_recipe, load_history, log, training

from . import killing

RECIPE = get_recipe("fast", epochs=4, batch_size=16, first=1.0, hardest=0.75)  # 4, 3, 3, 3 steps
FINISHED = ["checkpoint-3.pt", "checkpoint-4.pt", "history.json"]
NO_CHECKPOINT = r"checkpoint-\d\.pt is damaged \(no checkpoint of this lib"
run = partial(killing.run, recipe=RECIPE)


@pytest.fixture(scope="module")
def part(sample):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster with so few images
    yield killing.few(sample, 64)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(part):
    return run(part, None)


def stop(part, folder, call, fault, owner=training, name="augment", **options):
    """A run in which so many-th call of a function raises `fault`, or gives it."""
    faults = [*[DEFAULT] * (call - 1), fault]  # one more call is an error of its own
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, Mock(wraps=getattr(owner, name), side_effect=faults))
        run(part, folder, **options)


def crash(part, folder, call, **options):
    with pytest.raises(ZeroDivisionError):
        stop(part, folder, call, ZeroDivisionError, **options)


@pytest.fixture
def stopped(part, tmp_path):
    crash(part, tmp_path / "run", 10)  # in the third epoch of four
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))


def test_a_stopped_run_goes_on(part, stopped, undisturbed, monkeypatch, capsys):
    """And shows itself whole, even if clocks go backwards and a history was half-written."""
    assert names(stopped) == ["checkpoint-1.pt", "checkpoint-2.pt", "history.json"]
    assert len(load_history(stopped)) == 2
    os.utime(stopped / "checkpoint-1.pt", (4e9, 4e9))  # "newer" than the second
    monkeypatch.setattr(time, "time", Mock(side_effect=range(10**6, 0, -1)))
    os.renames(stopped / "history.json", stopped / ".part-x" / "history.json")
    assert run(part, stopped, verbose=True) == undisturbed
    assert names(stopped) == FINISHED
    assert all(epoch.seconds > 0 for epoch in load_history(stopped))
    out, err = capsys.readouterr()
    assert out.splitlines() == [log.test_line(epoch) for epoch in load_history(stopped)]
    assert f"{stopped} holds the run's 2 epochs of 4; going on from epoch 3\n" in err
    assert err.count("\n") == 1 + 4, "a bar for each epoch, those of before too"


def test_a_finished_run_is_not_trained_again(part, tmp_path, undisturbed, monkeypatch, capsys):
    """Even if it was stopped before its history was written."""
    crash(part, tmp_path, 4, owner=checkpoint, name="save_history")
    monkeypatch.delattr(training, "augment")
    assert run(part, tmp_path, verbose=True) == undisturbed
    out, err = capsys.readouterr()
    assert f"{tmp_path} holds the run's 4 epochs of 4: it is finished, and not trained" in err
    assert len(out.splitlines()) == 4


def test_unless_asked(part, tmp_path, undisturbed):
    run(part, tmp_path, recipe=replace(RECIPE, epochs=6))
    for name in ("weights.safetensors", "curves.png"):
        (tmp_path / name).touch()
    old = names(tmp_path)
    crash(part, tmp_path, 2, resume=False)
    assert names(tmp_path) == old, "the old run stays until there is more of the new"
    assert run(part, tmp_path, resume=False) == undisturbed
    assert names(tmp_path) == FINISHED, "nothing of the old"


def test_what_the_net_draws_itself_goes_on(part, tmp_path):
    class Net(nn.Sequential):
        def __init__(self, _):
            super().__init__(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))

    crash(part, tmp_path, 6, net=Net)
    assert run(part, tmp_path, net=Net) == run(part, None, net=Net)


def quota(part, folder):
    """The system's limit on a file's size stands for a quota, for those who are not root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.ExitStack() as after:
        after.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        run(part, folder)


def locked(part, folder):
    with contextlib.ExitStack() as after:
        folder.chmod(0o500)
        after.callback(folder.chmod, 0o700)
        after.callback(os.seteuid, os.geteuid())
        os.seteuid(os.geteuid() or 65534)  # to root everything is permitted
        run(part, folder)


OTHER = replace(RECIPE, epochs=5, learning_rate=0.1)
control_c = partial(stop, fault=KeyboardInterrupt)
anew = partial(control_c, resume=False)
diverge = partial(stop, fault=torch.full((16, 1, 24, 24), torch.nan))
diverge_in_test = partial(stop, fault=(torch.inf, 10), name="evaluate")
KEPT = "epochs 1 to 2 are kept in FOLDER$"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (partial(control_c, call=4), "^\nstopped; epochs 1 to 3 are kept in FOLDER: run again to"),
        (partial(anew, call=2), "stopped; FOLDER is as it was: run again with resume True to go"),
        (partial(anew, call=6), "stopped; epoch 1 is kept in FOLDER: run again with resume True"),
        (partial(diverge, call=2), f"epoch 3, batch_id 1, .* loss is nan; .*; {KEPT}"),
        (partial(diverge_in_test, call=1), f"3, batch_id 2, .* loss after it is inf; .*; {KEPT}"),
        (quota, f"3.pt cannot be written: File too large: mend that, then run again .*; {KEPT}"),
        (locked, "^FOLDER cannot be written: Permission denied$"),
        (partial(run, recipe=OTHER), "4 there, 5 here; learning_rate is 0.15 there, 0.1 here; ch"),
        (partial(run, seed=3), "^FOLDER holds another run: seed is 0 there, 3 here; choose anoth"),
        (lambda part, at: run(part.take(60), at), "training images is 64 there, 60 here; choose"),
        (lambda p, at: run(replace(p, train_images=p.train_images.mT), at), "images are others; c"),
        (partial(run, net=lambda _: mnist_lib.SprintNet(24)), "2.pt does not fit this run's net"),
    ],
)
def test_a_run_that_cannot_go_on(part, stopped, undisturbed, capsys, work, message):
    """It says why, and what is kept goes on later."""
    with pytest.raises((KeyboardInterrupt, RunError)) as caught:
        work(part, stopped)
    said = f"{caught.value}{capsys.readouterr().err}"
    assert re.search(message.replace("FOLDER", str(stopped)), said)
    assert run(part, stopped) == undisturbed


def sealed(values, save=torch.save):
    """The bytes of a checkpoint, with the digest that they should have."""
    save(values, content := io.BytesIO())
    return content.getvalue() + hashlib.sha256(content.getvalue()).digest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (os.remove, "holds the history of a run but no checkpoint to go on from: choose another"),
        (lambda path: path.unlink() or path.mkdir(), r"2\.pt cannot be read: Is a dir.*; mend th"),
        (lambda path: path.write_bytes(b""), r"2\.pt .* \(its 0 .*; .*1\.pt .* \(its 0 .*: remove"),
        ([], NO_CHECKPOINT),
        ({"format": checkpoint.FORMAT}, NO_CHECKPOINT),
        ({"format": checkpoint.FORMAT, "mnist_lib": "1"}, NO_CHECKPOINT),
        *(
            ({"format": n, "mnist_lib": "7"}, f"7 in .* {n}, .* format 3: fin")
            for n in (0, 1, 2, 4)
        ),
    ],
)
def test_no_checkpoint_to_go_on_from(part, stopped, damage, message):
    for path in stopped.glob("checkpoint-*"):
        damage(path) if callable(damage) else path.write_bytes(sealed(damage))
    with pytest.raises(RunError, match=message):
        run(part, stopped)


def test_the_checkpoint_before_a_damaged_one_is_used(part, stopped, undisturbed, capsys):
    newest = stopped / "checkpoint-2.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert run(part, stopped) == undisturbed
    said = rf"{newest} is damaged \(its 5000 bytes .*\); checkpoint-1\.pt is used instead\n"
    assert re.fullmatch(said, capsys.readouterr().err)


def damaged(path, flip):
    """Many times: `path` is cut at a byte or has one flipped, all near its ends, some between."""
    size = len(content := path.read_bytes())
    for at in (*range(60), *range(60, size - 60, size // 150), *range(size - 60, size)):
        for rest in (b"", bytes([content[at] ^ 1]) + content[at + 1 :])[: 1 + flip]:
            yield path.write_bytes(content[:at] + rest)


def test_a_checkpoint_cut_at_any_byte_or_with_one_changed_is_noticed(stopped):
    path = stopped / "checkpoint-2.pt"
    checkpoint._read(path)
    for _ in damaged(path, flip=True):
        with pytest.raises(checkpoint._Damaged):
            checkpoint._read(path)


def test_weights_that_cannot_be_loaded(stopped):
    with pytest.raises(RunError, match=r"weights\.safetensors cannot be read: No such file"):
        mnist_lib.load_weights(mnist_lib.Net(), stopped)
    mnist_lib.save_run(stopped, load_history(stopped), mnist_lib.Net())
    with pytest.raises(RunError, match="holds the weights of another net than SprintNet"):
        mnist_lib.load_weights(mnist_lib.SprintNet(), stopped)
    for _ in damaged(stopped / "weights.safetensors", flip=False):
        with pytest.raises(RunError, match="is no whole safetensors file"):
            mnist_lib.load_weights(mnist_lib.Net(), stopped)


@pytest.mark.parametrize("save", [torch.save, partial(pickle.dump, protocol=2)])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(part, tmp_path, save):
    hurt = tmp_path / "hurt"
    harmful = type("Harmful", (), {"__reduce__": lambda self: (os.mkdir, (str(hurt),))})()
    content = sealed({"format": checkpoint.FORMAT, "mnist_lib": "1", "history": harmful}, save)
    (tmp_path / "checkpoint-1.pt").write_bytes(content)
    with pytest.raises(RunError, match=NO_CHECKPOINT):
        run(part, tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(content[:-32])
    with pytest.raises(RunError, match=r"weights\.safetensors holds Python objects"):
        mnist_lib.load_weights(mnist_lib.Net(), tmp_path)
    assert not hurt.exists()
    with contextlib.suppress(RuntimeError):  # the bare pickle is none of torch's, but has run
        torch.load(io.BytesIO(content[:-32]), weights_only=False)
    assert hurt.exists(), "it was a real one"


def test_file_systems_without_locks_or_folders_to_sync(part, tmp_path, monkeypatch, capsys):
    """Still, a file is brought to the disk before it is renamed, and its folder tried after."""
    done, fsync, replace = [], os.fsync, os.replace

    def sync(file):
        done.append("folder" if os.path.isdir(file) else "file")
        fsync(file if done[-1] == "file" else 10**6)  # no such file: fails

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), replace(*paths)))
    monkeypatch.setattr("filelock.FileLock.acquire", Mock(side_effect=NotImplementedError))
    run(part, tmp_path)
    assert names(tmp_path) == FINISHED
    assert done == ["file", "rename", "folder"] * 8, "a checkpoint and a history an epoch"
    assert f"{tmp_path} has no locks: take care that no other run" in capsys.readouterr().err


def test_folder_moved_to_another_machine(part, stopped, undisturbed, monkeypatch, capsys):
    here = mnist_lib.environment(torch.device("cpu"))
    there = here | {"processor": "abacus", "torch": "9.9"}
    with monkeypatch.context() as patched:
        patched.setattr(training, "environment", lambda _: there)
        epochs, record, weights = run(part, stopped)
    assert (epochs, weights) == undisturbed[::2], "nothing but the name of the machine changed"
    assert record == undisturbed[1] | {"resumed": [{"after_epoch": 2} | there]}
    assert f"abacus now; torch {here['torch']} before, 9.9 now: equal" in capsys.readouterr().err
    assert run(part, stopped)[1] == record, "a finished run is no further move"


@pytest.mark.parametrize(("kind", "which"), [("cuda", [torch.device("cuda:0")]), ("mps", [])])
def test_checkpoint_from_a_gpu(part, tmp_path, monkeypatch, undisturbed, kind, which):
    """Its random state goes on with it; a CPU can go on, too."""
    state, cpu = list(range(16)), tmp_path / "cpu"
    gpu = Mock(**{"get_rng_state.return_value": torch.tensor(state, dtype=torch.uint8)})
    device = property(lambda _: torch.device(kind, 0), lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda _: f"{kind}:0")
        patched.setattr(torch, "get_device_module", lambda _: gpu)
        patched.setattr(checkpoint.Checkpoints, "device", device, raising=False)
        crash(part, cpu, 10)
        gpu.get_rng_state.assert_called_with(*which)
        run(part, shutil.copytree(cpu, tmp_path / "gpu"))
    put_back, *whose = gpu.set_rng_state.call_args.args
    assert (put_back.tolist(), whose) == (state, which)
    assert f"{kind}:0".encode() in (cpu / "checkpoint-2.pt").read_bytes()
    assert run(part, cpu) == undisturbed
