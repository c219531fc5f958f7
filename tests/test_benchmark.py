"""The benchmark: its counting by hand, its two ways against each other, its words."""

import re
import sys

import pytest
import torch

from mnist_lib import RECIPES, benchmark, get_recipe
from mnist_lib.benchmark import Measurement, agreement, main, operations, table
from mnist_lib.device import peak_memory


def test_operations_by_hand():
    forward = (
        8 * 9 * 28**2  # conv1
        + 16 * 8 * 9 * 28**2
        + 2 * 16 * 16 * 9 * 14**2
        + 16 * 16 * 9 * 5**2
        + 32 * 16 * 9 * 3**2
        + 10 * 32 * 3**2
    )
    # Each as much again for the weights' gradient and the input's, which is not taken of images.
    assert operations() == 2 * (3 * forward - 8 * 9 * 28**2)


def test_both_ways_are_the_same_mathematics(sample):
    assert agreement(sample, get_recipe("logged", batch_size=8)) < 1e-12


def test_agreement_notices_another_net(sample, monkeypatch):
    forward = benchmark.Net.forward
    monkeypatch.setattr(
        benchmark, "AssignmentNet", type("Bent", (benchmark.Net,), {"forward": bent(forward)})
    )
    assert agreement(sample, get_recipe("logged", batch_size=8)) > 1e-6


def bent(forward):
    return lambda self, x: 1.001 * forward(self, x)


def test_table_by_hand():
    slow, fast = ([Measurement(seconds, 800_000_000) for seconds in of] for of in ((2, 9, 4), (1,)))
    measured = {(2, 32, "the assignment's way"): slow, (2, 32, "mnist_lib.train"): fast}
    lines = table(measured, {2: 100e9}, images=6000).splitlines()
    assert lines[2].split() == [
        *("2", "32", "the", "assignment's", "way"),
        *("47.0", "40.0", "1.00", "18%", "800", "MB"),  # 188 batches in the median of 4 seconds
    ]
    assert lines[3].split()[3:] == ["188.0", "10.0", "4.00", "70%", "800", "MB"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_sees_what_was_freed():
    before = peak_memory()
    torch.zeros(before // 4 + 50_000_000)
    assert peak_memory() > before + 100_000_000


def test_it_prints_one_table(monkeypatch, capsys, sample, tmp_path):
    monkeypatch.setattr(benchmark, "load_mnist", lambda _: sample)
    monkeypatch.chdir(tmp_path)
    words = ["--images", "128", "--rounds", "1", "--threads", "1", "--batches", "16"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    main()
    out = capsys.readouterr().out
    assert "the median of 1 rounds of 128 images" in out
    assert out.count("mnist_lib.train") == 1
    assert "GFLOP/s" in out
    assert "agree within" in out
    whole = {}
    for name in RECIPES:
        seconds, epochs, kept, share = re.search(
            rf"recipe {name}, 1 threads: (.+) s for its (.+) epochs; a checkpoint takes (.+) ms, "
            "(.+)% of an epoch",
            out,
        ).groups()
        epoch = float(seconds) / int(epochs)
        assert float(share) == pytest.approx(float(kept) / 10 / epoch, rel=0.05, abs=0.01)
        whole[name] = float(seconds)
    (times,) = re.findall("logged trains (.+) times as long as fast", out)
    assert float(times) == pytest.approx(whole["logged"] / whole["fast"], rel=0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "takes whole numbers of at least 1, not '0'"),
        (["--batches", "32", "x"], "takes whole numbers of at least 1, not 'x'"),
        (["--images", "100"], "batch_size is 128, but there are only 100"),
    ],
)
def test_bad_words_are_one_sentence(monkeypatch, capsys, sample, words, message):
    monkeypatch.setattr(benchmark, "load_mnist", lambda _: sample)
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert message in capsys.readouterr().err + str(caught.value)
