"""A run's folder has whole files or none; what cannot be read is refused in one sentence."""

import dataclasses
import errno
import statistics
import sys

import pytest
import torch
import torch.nn as nn

import mnist_lib
from mnist_lib import FastNet, Net, ParameterError, Rescaled, RunError, SprintNet, get_recipe, train
from mnist_lib.base.files import append_line, write_file
from mnist_lib.history import load_history, save_history
from mnist_lib.nets import NETS
from mnist_lib.runs.folder import (
    PRETRAINED,
    load_weights,
    pretrained,
    run_folder,
    save_run,
    trained_names,
)
from tests.conftest import ROOT
from tests.test_history import make

HISTORY = make(9900, 9944, seed=1)
ASSIGNMENT = get_recipe("assignment")


def test_run_reads_back(tmp_path):
    net = FastNet()
    paths = save_run(tmp_path / "run", HISTORY, net.to(memory_format=torch.channels_last))
    assert [path.name for path in paths] == ["history.json", "weights.safetensors"]
    left = [path for path in tmp_path.joinpath("run").iterdir() if path.name != ".lock"]
    assert sorted(left) == paths, "nothing half-written"
    assert load_history(tmp_path / "run") == load_history(paths[0]) == HISTORY
    for again in (FastNet(), Net()):
        load_weights(again, tmp_path / "run")
        for name, tensor in net.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", NETS)
def test_weights_of_every_net_come_back(tmp_path, name):
    """A file starts with a length, which for p4006 begins as a pickle does."""
    net, again = (mnist_lib.make_net(get_recipe(net=name)) for _ in range(2))
    save_run(tmp_path, HISTORY, net)
    load_weights(again, tmp_path)
    assert all(map(torch.equal, net.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize(
    ("saved", "crop", "other", "looks_at"),
    [
        (FastNet(24), 24, Net(), 28),
        (Net(), 28, FastNet(20), 20),
        (SprintNet(20), 20, FastNet(), 28),
    ],
)
def test_weights_know_their_crop(tmp_path, saved, crop, other, looks_at):
    save_run(tmp_path, HISTORY, saved)
    load_weights(saved, tmp_path)
    with pytest.raises(RunError, match=f"for crop {crop}, and this net has crop {looks_at}"):
        load_weights(other, tmp_path)


SAVED = Net().state_dict()
WRAPPED = {f"module._orig_mod.{name}": tensor for name, tensor in SAVED.items()}


@pytest.mark.parametrize(
    "weights",
    [
        *(SAVED, WRAPPED, {f"model.{name}": tensor for name, tensor in SAVED.items()}),
        *({"state_dict": WRAPPED, "epoch": 3}, {"optimizer": {"state": {}}, "net": SAVED}),
        {"epoch": 3, "params": {f"net.{name}": tensor for name, tensor in SAVED.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_torch_saved(tmp_path, monkeypatch, weights, zipped):
    """They may come from a GPU, and from a net in DataParallel and torch.compile."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    torch.save(weights, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    for name, tensor in load_weights(Net(), tmp_path / "weights.pt").state_dict().items():
        assert torch.equal(tensor, SAVED[name]), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Net(), "holds Python objects, .* could run code: save net.state_dict"),
        ({"best": SAVED}, "holds a dict, not a state_dict: save net.state_dict"),
        (SAVED | {"conv7.bias": torch.zeros(10).char()}, r"another net than Net: .* int8 \(10,\)"),
        (SAVED["conv1.bias"], "holds a Tensor, not a state_dict"),
        (SAVED | {"conv7.bias": SAVED["conv1.bias"]}, r"conv7.bias is \(8,\) there, \(10,\) here"),
        ({"conv1.bias": SAVED["conv1.bias"]}, r"conv1.weight is none there, \(8, 1, 3, 3\) here"),
        (SAVED | {"conv8.bias": SAVED["conv1.bias"]}, r"conv8.bias is \(8,\) there, none here"),
        (b"PK\x03\x04 cut", "is not a whole file of torch.save"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS, .* git lfs pull"),
        (b"", "is not a whole safetensors file"),
    ],
)
def test_what_are_no_weights_of_this_net(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(RunError, match=f"^{path} .*{message}"):
        load_weights(Net(), path)


def test_home_is_expanded_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save_run("~/runs/try", HISTORY, Net())[0].parent == tmp_path / "runs" / "try"
    assert load_history("~/runs/try") == HISTORY
    load_weights(Net(), "~/runs/try")


def test_senseless_arguments(sample, tmp_path):
    for message, call, *arguments in (
        ("folder must be a path, got None", save_run, None, HISTORY, Net()),
        ("path must be a path, got None", load_weights, Net(), None),
        ("seed must be a whole", run_folder, None, ASSIGNMENT, "/../../evil", sample),
        ("recipe must be a Recipe", run_folder, None, "fast", 0, None),
        ("recipe must be a Recipe", mnist_lib.make_net, "fast"),
        ("data must be an MNIST, .*ones", run_folder, None, ASSIGNMENT, 0, torch.ones),
        ("history must be a History", save_run, tmp_path, Net(), HISTORY),
    ):
        with pytest.raises(ParameterError, match=message):
            call(*arguments)


def test_write_that_fails_leaves_what_was_there(tmp_path, sample):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=f"{path} cannot be written: No space left on device"):
        write_file(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError, match="file is a file, not a folder: choose another"):
        run_folder(path, ASSIGNMENT, 0, sample)
    with pytest.raises(RunError, match=r"file/run.* cannot be written: Not a directory"):
        run_folder(path / "run", ASSIGNMENT, 0, sample)
    with pytest.raises(RunError, match=r"file/study\.jsonl cannot be written"):
        append_line(path / "study.jsonl", "line\n")


@pytest.mark.parametrize("name", ["ENOLCK", "EOPNOTSUPP", "EINVAL"])
def test_what_a_file_system_lacks_is_said_once(tmp_path, capsys, monkeypatch, name):
    def fail(*args):
        raise OSError(getattr(errno, name), "")

    for call in ("fcntl.flock", "os.fsync"):
        monkeypatch.setattr(call, fail)
    assert save_run(tmp_path, HISTORY, Net()) == save_run(tmp_path, HISTORY, Net())
    said = capsys.readouterr().err
    assert said.count(f"{tmp_path} has no locks: take") == said.count("cannot be flushed") == 1


def test_default_folder_tells_runs_apart(sample, monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "there"))
    whole, part = dataclasses.replace(sample, source="mnist"), sample.take(500)
    fast, shorter = get_recipe("fast"), get_recipe("assignment", epochs=2)
    for name, *run in (
        ("assignment-seed0-train_images4000", None, ASSIGNMENT, 0, whole),
        ("assignment-seed0-sample", None, ASSIGNMENT, 0, sample),
        ("assignment-seed1-sample", "", ASSIGNMENT, 1, sample),
        ("assignment-epochs2-seed0-sample", None, shorter, 0, sample),
        ("assignment-seed0-sample-train_images500", None, ASSIGNMENT, 0, part),
        ("fast-seed0-sample", None, fast, 0, sample),
        ("fast-seed0-sample", None, fast.for_source("sample"), 0, sample),
    ):
        assert run_folder(*run) == tmp_path / "there" / name
    assert run_folder(tmp_path / "named", fast, 0, sample) == tmp_path / "named"


def test_a_run_of_your_own_net(sample, monkeypatch, tmp_path, my_nets):
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path))
    recipe = get_recipe("fast", "epochs=1 rotation=0", net="my_nets:TinyNet")
    net = mnist_lib.make_net(recipe)
    history = train(net, sample.take(64), recipe, verbose=False)
    assert mnist_lib.verdict(net, history).claims[0].measured == "7,850"
    folder = run_folder(None, recipe, 0, sample)
    assert folder.name == "fast-epochs1-netmy_nets.TinyNet-rotation0-seed0-sample"
    save_run(folder, history, net)
    assert torch.equal(pretrained(folder)[1].weight, net[1].weight)
    del NETS[recipe.net], sys.modules["my_nets"]  # as in another process
    my_nets.unlink()
    with pytest.raises(RunError, match=r"net my_nets:TinyNet, not of .*: use load_weights\(net, '"):
        pretrained(folder)
    load_weights(net, folder)
    assert not my_nets.exists(), "not imported again"


def test_default_folder_is_in_the_checkout(sample, monkeypatch):
    monkeypatch.delenv("MNIST_RUNS", raising=False)
    monkeypatch.setattr("mnist_lib.runs.folder.check_writable", bool)  # it would make the folder
    folder = run_folder(None, get_recipe("assignment", epochs=3), 5, sample)
    assert folder.parent == ROOT / "runs"


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_net_saves_and_takes_what_is_inside(tmp_path, wrap):
    net = FastNet(24)
    save_run(tmp_path, HISTORY, wrap(net))
    torch.save(wrap(net).state_dict(), tmp_path / "own.pt")
    for path in (tmp_path, tmp_path / "own.pt"):
        for again in (FastNet(24), wrap(FastNet(24))):
            assert load_weights(again, path) is again
            weights = dict(again.named_parameters()).values()
            assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    with pytest.raises(RunError, match="for crop 24, and"):
        load_weights(wrap(FastNet(28)), tmp_path)


def test_weights_know_their_scale(tmp_path):
    net = Rescaled(Net(), 0.5, 0.5)
    save_run(tmp_path, HISTORY, net)
    load_weights(Rescaled(Net(), 0.5, 0.5), tmp_path)
    for other in (Net(), Rescaled(Net(), 0, 1)):
        with pytest.raises(RunError, match=r"for crop 28, scale \(0\.5, 0\.5\), and"):
            load_weights(other, tmp_path)
        save_run(tmp_path / "other", HISTORY, other)
        with pytest.raises(RunError, match=r"has crop 28, scale \(0\.5, 0\.5\): make"):
            load_weights(net, tmp_path / "other")


def test_a_run_that_has_not_ended_has_no_weights(sample, tmp_path):
    recipe = get_recipe("assignment", epochs=1)
    train(mnist_lib.make_net(recipe), sample.take(64), recipe, folder=tmp_path, verbose=False)
    for path in (tmp_path, tmp_path / "checkpoint-1.pt"):
        with pytest.raises(RunError, match=f"^{path} .* without its final weights: .* save_run"):
            load_weights(Net(), path)


def test_a_run_does_not_replace_another(tmp_path):
    save_run(tmp_path, HISTORY, Net())
    with pytest.raises(RunError, match="holds a run of another seed"):
        save_run(tmp_path, make(9900, 9944, seed=2), Net())
    save_run(tmp_path / "fold", make(9900, seed=1, data="1"), Net())
    with pytest.raises(RunError, match="holds a run of another data"):
        save_run(tmp_path / "fold", make(9900, seed=1, data="2"), Net())
    assert load_history(tmp_path) == HISTORY


@pytest.mark.parametrize("name", trained_names())
def test_trained_nets_come_with_the_library(sample, name):
    net, history = pretrained(name), load_history(PRETRAINED / name)
    assert not net.training
    assert history.record["recipe"]["name"] == name
    _, correct = mnist_lib.evaluate(net, sample)  # it was trained on these digits
    assert correct >= 990
    study = mnist_lib.recorded_studies()["distilled assignment" if name == "distilled" else name]
    runs = {run.record["seed"]: run.final.correct for run in study}
    off = {seed: abs(right - statistics.fmean(runs.values())) for seed, right in runs.items()}
    assert off[history.record["seed"]] == min(off.values())
    assert runs[history.record["seed"]] == history.final.correct


def test_a_runs_net_comes_back_from_its_folder(tmp_path):
    recipe = get_recipe("small", net="p998", crop=20)
    net = mnist_lib.make_net(recipe)
    history = make(9900, seed=0, recipe=dataclasses.asdict(recipe))
    save_run(tmp_path, history, net)
    again = pretrained(tmp_path)
    assert again.crop == 20
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    save_history(tmp_path / "history.json", make(9900, recipe={"name": "of 1997"}))
    with pytest.raises(RunError, match="has no recipe of this library"):
        pretrained(tmp_path)
    for bad in ("best", tmp_path / "none", 3):
        with pytest.raises(ParameterError, match="name must be"):
            pretrained(bad)
