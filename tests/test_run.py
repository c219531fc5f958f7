"""A run's folder: whole files or none, readable again, refused in one sentence."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

import mnist_lib
from mnist_lib import LogError, RunError, get_recipe, load_history, run_folder, save_run
from mnist_lib.files import write_file

from .test_history import make


def test_run_reads_back(tmp_path):
    net, history = mnist_lib.Net(), dataclasses.replace(make(9900, 9944), record={"seed": 1})
    paths = save_run(tmp_path / "run", history, net.to(memory_format=torch.channels_last))
    assert [path.name for path in paths] == ["history.json", "weights.safetensors", "curves.png"]
    assert sorted(tmp_path.joinpath("run").iterdir()) == sorted(paths), "nothing half-written"
    assert load_history(tmp_path / "run") == load_history(paths[0]) == history
    again = mnist_lib.Net()
    again.load_state_dict(load_file(paths[1]))
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert paths[2].read_bytes().startswith(b"\x89PNG")


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


def test_default_folder_is_in_the_checkout(sample):
    folder = run_folder(None, get_recipe("logged", epochs=3), 5, sample)
    assert folder.parents[1].joinpath("mnist_lib", "run.py").is_file()
    folder.rmdir()


def test_histories_that_cannot_be_read(tmp_path):
    with pytest.raises(RunError, match=r"history\.json cannot be read: No such file"):
        load_history(tmp_path)
    (tmp_path / "history.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="is not a text file"):
        load_history(tmp_path)
    (tmp_path / "history.json").write_text("{}")
    with pytest.raises(LogError, match=r"history\.json is not a history"):
        load_history(tmp_path)
