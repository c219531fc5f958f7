"""The script for distillation: who teaches whom, the loss, and a run from end to end."""

import os

import distill
import pytest
import torch
import torch.nn as nn

from mnist_lib import get_recipe, load_mnist, load_study
from mnist_lib.data import FOLDS
from tests.conftest import write


def tiny() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


@pytest.fixture
def data(idx_files, tmp_path, monkeypatch):
    """60 images, five in each fold; students of one epoch."""
    write(tmp_path / "data", idx_files)
    monkeypatch.setenv("MNIST_DATA", os.fspath(tmp_path / "data"))
    short = get_recipe("small", "epochs=1 batch_size=10")
    for name, value in {"TEACHERS": {tiny: short}, "STUDENT": short, "VIEWS": 1}.items():
        monkeypatch.setattr(distill, name, value)
    return load_mnist()


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["distill", *map(os.fspath, words)])
    distill.main()


def test_folds_are_those_of_hold_out(data):
    for fold in range(FOLDS):
        held_out = data.train_images[distill.fold_of(data) == fold]
        expected = data.hold_out(fold).test_images
        assert sorted(held_out.sum((1, 2)).tolist()) == sorted(expected.sum((1, 2)).tolist())


def test_a_fold_is_taught_by_those_that_never_saw_it(data, tmp_path, monkeypatch):
    keep, file = tmp_path / "keep", tmp_path / "runs.jsonl"
    for step in ("teachers", "views", "answers"):
        command(monkeypatch, step, keep)
    lines = (keep / "teachers.csv").read_text(encoding="utf-8").splitlines()
    assert [line[:9] for line in lines[1:3]] == ["tiny,0,20", "both,0,20"]
    assert len(lines) == 7
    command(monkeypatch, "students", keep, file, "--seeds", "3", "11", "--validation")
    command(monkeypatch, "students", keep, file, "--seeds", "0")
    runs = load_study(file)
    names = [run.record["distilled"]["teachers"] for run in runs]
    assert names == [["tiny-0"], ["tiny-2"], ["tiny-0", "tiny-1", "tiny-2"]]
    for fold, group in ((3, 0), (11, 2)):
        seen = {image.sum().item() for image in distill.without(data, group).train_images}
        assert len(seen) == 40
        assert not seen & {image.sum().item() for image in data.hold_out(fold).test_images}
    assert [run.record["train_images"] for run in runs] == [55, 55, 60]
    command(monkeypatch, "students", keep, file, "--seeds", "0")
    assert len(load_study(file)) == 3, "a run that is there is not made again"


def test_the_loss_is_least_where_the_answers_agree():
    asked = torch.randn(5, 10).log_softmax(1)
    assert distill.divergence(asked, asked).item() == pytest.approx(0, abs=1e-6)
    output = torch.randn(5, 10).log_softmax(1)
    p, q = ((a / distill.TEMPERATURE).softmax(1) for a in (asked, output))
    by_hand = distill.TEMPERATURE**2 * (p * (p / q).log()).sum(1).mean()
    assert distill.divergence(output, asked).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_missing_step_is_named(data, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="is missing: take the steps in"):
        command(monkeypatch, "students", tmp_path, tmp_path / "runs.jsonl")
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, "students", tmp_path)
