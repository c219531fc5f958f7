"""A run's folder: whole files or none, readable again, refused in one sentence."""

import dataclasses
import shutil
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

import mnist_lib
from mnist_lib import (
    LogError,
    ParameterError,
    RunError,
    get_recipe,
    load_history,
    run_folder,
    save_run,
)
from mnist_lib.files import write_file

from .test_history import make


def test_run_reads_back(tmp_path):
    net, history = mnist_lib.Net(), dataclasses.replace(make(9900, 9944), record={"seed": 1})
    paths = save_run(tmp_path / "run", history, net.to(memory_format=torch.channels_last))
    assert [path.name for path in paths] == ["history.json", "weights.safetensors", "curves.png"]
    left = sorted(path for path in tmp_path.joinpath("run").iterdir() if path.name != ".lock")
    assert left == sorted(paths), "nothing half-written"
    assert load_history(tmp_path / "run") == load_history(paths[0]) == history
    again = mnist_lib.load_weights(mnist_lib.Net(), tmp_path / "run")
    assert load_file(paths[1]).keys() == again.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_weights_know_their_crop(tmp_path):
    net = mnist_lib.Net(crop=24)
    save_run(tmp_path, dataclasses.replace(make(9900), record={"seed": 1}), net)
    mnist_lib.load_weights(mnist_lib.Net(crop=24), tmp_path)
    message = "holds weights for the middle 24 pixels of the images, and this net looks at 28: make"
    with pytest.raises(RunError, match=message):
        mnist_lib.load_weights(mnist_lib.Net(), tmp_path)


def test_home_is_expanded_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    history = dataclasses.replace(make(9900), record={"seed": 1})
    assert save_run("~/runs/try", history, mnist_lib.Net())[0].parent == tmp_path / "runs" / "try"
    assert load_history("~/runs/try") == history
    mnist_lib.load_weights(mnist_lib.Net(), "~/runs/try")


def test_what_is_no_path():
    history = dataclasses.replace(make(9900), record={"seed": 1})
    for call in (
        lambda: save_run(None, history, mnist_lib.Net()),
        lambda: load_history(None),
        lambda: mnist_lib.load_weights(mnist_lib.Net(), None),
    ):
        with pytest.raises(ParameterError, match="takes a folder, not None"):
            call()


def test_a_seed_leads_nowhere(sample):
    with pytest.raises(ParameterError, match="seed takes a whole number from 0"):
        run_folder(None, get_recipe("logged"), "/../../evil", sample)


def test_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=f"{path} cannot be written: No space left on device"):
        write_file(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_written(tmp_path, sample):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run.* cannot be written: Not a directory"):
        run_folder(tmp_path / "file" / "run", get_recipe("logged"), 0, sample)


def test_default_folder_tells_runs_apart(sample, monkeypatch, tmp_path):
    monkeypatch.delenv("MNIST_RUNS", raising=False)
    monkeypatch.setattr(mnist_lib.run, "__file__", str(tmp_path / "lib" / "run.py"))
    monkeypatch.chdir(tmp_path)  # no checkout there: beside the working directory
    logged = get_recipe("logged")
    folders = [
        run_folder(None, logged, 0, dataclasses.replace(sample, source="mnist")),
        run_folder(None, logged, 0, sample),
        run_folder("", logged, 1, sample),
        run_folder(None, get_recipe("logged", epochs=2), 0, sample),
        run_folder(None, logged, 0, sample.take(500)),
    ]
    assert [folder.relative_to(tmp_path / "runs").as_posix() for folder in folders] == [
        "logged-seed0-train_images4000",
        "logged-seed0-sample",
        "logged-seed1-sample",
        "logged-epochs2-seed0-sample",
        "logged-seed0-sample-train_images500",
    ]


def test_default_folder_is_where_the_environment_says(sample, monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "there"))
    folder = run_folder(None, get_recipe("fast"), 0, sample)
    assert folder == tmp_path / "there" / "fast-seed0-sample"
    assert run_folder(tmp_path / "named", get_recipe("fast"), 0, sample) == tmp_path / "named"


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """A Google Drive as in Colab; `mounted` lists what was mounted."""
    drive, mounted = tmp_path / "drive", []

    def mount(mountpoint):
        mounted.append(mountpoint)
        (drive / "MyDrive").mkdir(parents=True, exist_ok=True)

    module = types.SimpleNamespace(drive=types.SimpleNamespace(mount=mount))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(mnist_lib.run, "DRIVE", drive)
    monkeypatch.setattr(mnist_lib.run, "DRIVE_RUNS", drive / "MyDrive" / "mnist_runs")
    return types.SimpleNamespace(
        runs=drive / "MyDrive" / "mnist_runs", mounted=mounted, fake=module
    )


@pytest.mark.parametrize(
    ("run_dir", "name"), [(None, "fast-seed0-sample"), ("", "fast-seed0-sample"), ("a/b", "a/b")]
)
def test_drive_is_mounted_when_asked(colab, sample, run_dir, name):
    folder = run_folder(run_dir, get_recipe("fast"), 0, sample, drive=True)
    assert folder == colab.runs / name
    assert folder.is_dir()
    assert colab.mounted == [str(mnist_lib.run.DRIVE)]


def test_drive_is_not_mounted_unless_asked(colab, sample, tmp_path):
    run_folder(tmp_path / "run", get_recipe("fast"), 0, sample)
    assert colab.mounted == []


@pytest.mark.parametrize("run_dir", ["/elsewhere", "../../../elsewhere"])
def test_no_way_out_of_drive(colab, sample, run_dir):
    with pytest.raises(ParameterError, match=r"run_dir takes a folder in .*mnist_runs or none"):
        run_folder(run_dir, get_recipe("fast"), 0, sample, drive=True)
    assert colab.mounted == []


def test_a_folder_on_a_drive_that_is_not_mounted(colab, sample):
    """It would be on the machine's own disk, and go with it."""
    named = colab.runs / "a"
    with pytest.raises(ParameterError, match=r"run_dir is .*/a, but Drive is not mounted: set dr"):
        run_folder(named, get_recipe("fast"), 0, sample)
    assert run_folder(named, get_recipe("fast"), 0, sample, drive=True) == named
    assert run_folder(named, get_recipe("fast"), 0, sample) == named


def test_drive_that_is_not_allowed(colab, sample):
    def refuse(mountpoint):
        raise ValueError("mount failed")

    colab.fake.drive.mount = refuse
    message = r"Google Drive was not mounted \(mount failed\); allow it, or set drive to False"
    with pytest.raises(RunError, match=message):
        run_folder(None, get_recipe("fast"), 0, sample, drive=True)


def test_drive_elsewhere_than_in_colab(sample):
    with pytest.raises(ParameterError, match="drive takes True in Colab only; elsewhere name a"):
        run_folder(None, get_recipe("fast"), 0, sample, drive=True)
    with pytest.raises(ParameterError, match="drive takes True or False, not 1"):
        run_folder(None, get_recipe("fast"), 0, sample, drive=1)


def test_default_folder_is_in_the_checkout(sample, monkeypatch):
    monkeypatch.delenv("MNIST_RUNS", raising=False)
    folder = run_folder(None, get_recipe("logged", epochs=3), 5, sample)
    assert folder.parents[1].joinpath("mnist_lib", "run.py").is_file()
    shutil.rmtree(folder)


def test_histories_that_cannot_be_read(tmp_path):
    with pytest.raises(RunError, match=r"history\.json cannot be read: No such file"):
        load_history(tmp_path)
    (tmp_path / "history.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="is not a text file"):
        load_history(tmp_path)
    (tmp_path / "history.json").write_text("{}")
    with pytest.raises(LogError, match=r"history\.json is not a history"):
        load_history(tmp_path)
