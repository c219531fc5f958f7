"""Runs that were stopped, moved or damaged go on and end with the same bits."""

import contextlib
import copy
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import mnist_lib
from mnist_lib import RunError, load_history, log, make_net
from mnist_lib.runs import checkpoint
from tests.conftest import small_files
from tests.runs import killing
from tests.test_device import RECIPE, on_devices  # its epochs take 4, 3, 3, 3 steps

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


def stop(part, folder, call, fault, testing=False, net=make_net, **options):
    """Run with a net that fails at step `call`, or in the test after it. `fault` says how."""
    trained = []  # whether each call was in training; the first such call is the trial

    def fail(net, images, output):
        trained.append(net.training)
        if net.training is not testing and sum(trained) == 1 + call:
            if isinstance(fault, type):
                raise fault
            return fault(output)

    def failing(recipe):
        made = net(recipe)
        made.register_forward_hook(fail)
        return made

    run(part, folder, net=failing, **options)


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
    """It prints all epochs, even if the clock goes backwards or a history is half-written."""
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


def test_a_run_stopped_in_its_first_epoch_begins_again(part, tmp_path):
    """With the net in hand, as in a notebook's cell: it is as it was before."""
    net = make_net(RECIPE)
    start, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()

    def fail_after_a_step(*_):
        torch.rand(1)
        if not torch.equal(net.conv1.weight, start["conv1.weight"]):
            raise ZeroDivisionError

    hook = net.register_forward_hook(fail_after_a_step)
    with pytest.raises(ZeroDivisionError):
        mnist_lib.train(net, part, RECIPE, folder=tmp_path, verbose=False)
    hook.remove()
    assert torch.equal(torch.get_rng_state(), random)  # for a net with dropout
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, start[name]), name


def test_a_finished_run_is_not_trained_again(part, stopped, undisturbed, capsys):
    """This is also true if it was stopped before its history was written."""
    before = (stopped / "history.json").read_bytes()
    run(part, stopped)
    (stopped / "history.json").write_bytes(before)
    stop(part, stopped, 1, ZeroDivisionError)  # no first step is taken
    assert run(part, stopped, verbose=True) == undisturbed
    out, err = capsys.readouterr()
    assert f"{stopped} holds the run's 4 epochs of 4: it is finished, and not trained" in err
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


@pytest.mark.parametrize("name", ["weights.safetensors", "curves.png"])
def test_what_no_run_of_the_folder_has_left_stays(part, tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(RunError, match=f"has a {name} but no checkpoint of its run: choose"):
        run(part, tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"


class AlwaysDropout(nn.Module):
    """As F.dropout without `training`: random in evaluation, too."""

    def forward(self, x):
        return nn.functional.dropout(x)


@on_devices
@pytest.mark.parametrize("dropout", [nn.Dropout, AlwaysDropout])
def test_what_the_net_draws_itself_goes_on(part, tmp_path, capsys, device, dropout):
    def net(_):
        layers = nn.Flatten(), dropout(), nn.Linear(784, 10), nn.LogSoftmax(dim=1)
        return nn.Sequential(*layers).to(device)

    crash(part, tmp_path, 6, net=net)
    torch.rand(5, device=device)
    again, whole = (run(part, folder, net=net) for folder in (tmp_path, None))
    assert ("random in evaluation" in capsys.readouterr().err) is (dropout is AlwaysDropout)
    if device == "cpu":
        assert again == whole
    losses = [[epoch["test_loss"] for epoch in epochs] for epochs, *_ in (again, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def locked(part, folder):
    with contextlib.ExitStack() as after:
        folder.chmod(0o500)
        after.callback(folder.chmod, 0o700)
        after.callback(os.seteuid, os.geteuid())
        os.seteuid(os.geteuid() or 65534)  # root may write everywhere
        run(part, folder)


OTHER = replace(RECIPE, epochs=5, learning_rate=0.1)
quota = small_files()(run)
control_c = partial(stop, fault=KeyboardInterrupt)
anew = partial(control_c, resume=False)
diverge = partial(stop, fault=lambda output: output * torch.nan)
# The net is certain of every answer, and mostly wrong.
diverge_in_test = partial(stop, fault=torch.eye(10)[0].log().expand_as, testing=True)
KEPT = "epochs 1 to 2 are kept in FOLDER$"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (partial(control_c, call=4), "^\nstopped; epochs 1 to 3 are kept in FOLDER: run again to"),
        (partial(anew, call=2), "stopped; FOLDER is as it was: run again with resume True to go"),
        (partial(anew, call=6), "stopped; epoch 1 is kept in FOLDER: run again with resume True"),
        (partial(diverge, call=2), f"epoch 3, batch_id 1, .* loss is nan; .*; {KEPT}"),
        (partial(diverge_in_test, call=3), f"3, batch_id 2, .* loss after it is inf; .*; {KEPT}"),
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
    """The error says why, and the checkpoints can still be used."""
    with pytest.raises((KeyboardInterrupt, RunError)) as caught:
        work(part, stopped)
    said = f"{caught.value}{capsys.readouterr().err}"
    assert re.search(message.replace("FOLDER", str(stopped)), said)
    assert run(part, stopped) == undisturbed


def sealed(values, save=torch.save):
    """Return the bytes of a checkpoint with a correct digest."""
    save(values, content := io.BytesIO())
    return content.getvalue() + hashlib.sha256(content.getvalue()).digest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (os.remove, "has a history.json but no checkpoint of its run: choose another"),
        (lambda path: path.unlink() or path.mkdir(), r"2\.pt cannot be read: Is a dir.*; mend th"),
        (lambda path: path.write_bytes(b""), r"2\.pt .* \(its 0 .*; .*1\.pt .* \(its 0 .*: remove"),
        ([], NO_CHECKPOINT),
        ({"format": checkpoint.FORMAT, "mnist_lib": "1"}, NO_CHECKPOINT),
        *(({"format": n, "mnist_lib": "7"}, f"7 in .* {n}, .*t 3: fin") for n in (0, 1, 2, 4)),
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
    """Cut `path` at a byte, or flip a bit of one: at all bytes near its ends, and some between."""
    size = len(content := path.read_bytes())
    for at in (*range(60), *range(60, size - 60, size // 150), *range(size - 60, size)):
        for rest in (b"", bytes([content[at] ^ 1]) + content[at + 1 :])[: 1 + flip]:
            yield path.write_bytes(content[:at] + rest)


def test_a_checkpoint_cut_at_any_byte_or_with_one_changed_is_noticed(stopped):
    (stopped / "checkpoint-1.pt").unlink()
    kept = checkpoint.Checkpoints(stopped, {}, {"net": mnist_lib.Net()}, torch.Generator())
    for _ in damaged(stopped / "checkpoint-2.pt", flip=True):
        with pytest.raises(RunError, match=r"2\.pt is damaged .*; none is intact"):
            kept.load()


def test_weights_that_cannot_be_loaded(tmp_path):
    with pytest.raises(RunError, match=r"weights\.safetensors cannot be read: No such file"):
        mnist_lib.load_weights(mnist_lib.Net(), tmp_path)
    mnist_lib.save_run(tmp_path, mnist_lib.logged_run(), mnist_lib.Net())
    for _ in damaged(tmp_path / "weights.safetensors", flip=False):
        with pytest.raises(RunError, match="is not a whole safetensors file"):
            mnist_lib.load_weights(mnist_lib.Net(), tmp_path)


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
    with contextlib.suppress(RuntimeError):  # torch refuses the bare pickle after it has run
        torch.load(io.BytesIO(content[:-32]), weights_only=False)
    assert hurt.exists(), "it was a real one"


def test_file_systems_without_locks_or_folders_to_sync(part, tmp_path, monkeypatch, capsys):
    """A file is still synced before it is renamed, and its folder afterwards."""
    synced, files, fsync = [], set(), os.fsync

    def sync(file):
        files.add(os.fstat(file).st_ino)
        synced.append((os.path.isdir(file), sum(1 for _ in tmp_path.glob("[!.]*"))))
        fsync(10**6 if os.path.isdir(file) else file)  # no such file: fails

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr("filelock.FileLock.acquire", Mock(side_effect=NotImplementedError))
    run(part, tmp_path)
    assert names(tmp_path) == FINISHED
    assert {path.stat().st_ino for path in tmp_path.glob("[!.]*")} < files, "no copies"
    assert synced[:4] == [(False, 0), (True, 1), (False, 1), (True, 2)], "files visible"
    assert [folder for folder, _ in synced] == [False, True] * 8, "two files an epoch"
    assert f"{tmp_path} has no locks: take care that no other run" in capsys.readouterr().err


def test_folder_moved_from_another_machine(part, stopped, undisturbed, capsys):
    here, there = mnist_lib.environment(torch.device("cpu")), {"processor": "abacus", "torch": "9"}
    path = stopped / "checkpoint-2.pt"
    values = torch.load(io.BytesIO(path.read_bytes()[:-32]))
    history = json.loads(values["history"]) | there
    path.write_bytes(sealed(values | {"history": json.dumps(history)}))
    epochs, record, weights = run(part, stopped)
    assert (epochs, weights) == undisturbed[::2], "nothing but the name of the machine changed"
    assert record == undisturbed[1] | there | {"resumed": [{"after_epoch": 2} | here]}
    said = f"processor abacus before, {here['processor']} now; torch 9 before, {here['torch']} now"
    assert f"{stopped}: {said}: equal up to rounding" in capsys.readouterr().err
    torch.set_num_threads(2)
    _, again, _ = run(part, stopped)
    torch.set_num_threads(1)
    assert again == record, "a finished run is no further move"


@pytest.mark.parametrize(("kind", "which"), [("cuda", [torch.device("cuda:0")]), ("mps", [])])
def test_checkpoint_from_a_gpu(part, tmp_path, monkeypatch, undisturbed, kind, which):
    """It restores the GPU's random state. A CPU can go on from it, too."""
    state, cpu = list(range(16)), tmp_path / "cpu"
    gpu = Mock(**{"get_rng_state.return_value": torch.tensor(state, dtype=torch.uint8)})
    device = property(lambda _: torch.device(kind, 0), lambda *_: None)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: f"{kind}:0")
    monkeypatch.setattr(torch, "get_device_module", lambda _: gpu)
    monkeypatch.setattr(checkpoint.Checkpoints, "device", device, raising=False)
    crash(part, cpu, 10)
    gpu.get_rng_state.assert_called_with(*which)
    run(part, shutil.copytree(cpu, tmp_path / "gpu"))
    monkeypatch.undo()
    put_back, *whose = gpu.set_rng_state.call_args.args
    assert (put_back.tolist(), whose) == (state, which)
    assert f"{kind}:0".encode() in (cpu / "checkpoint-2.pt").read_bytes()
    assert run(part, cpu) == undisturbed
