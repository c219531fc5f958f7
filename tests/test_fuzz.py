"""Mutated logs and data files: a result or our own error, soon, and in proportionate memory."""

import time
import tracemalloc
from importlib import resources

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_lib import DataError, LogError, parse_log
from mnist_lib.data import read_idx
from mnist_lib.history import History

from .conftest import idx

LOG = resources.files("mnist_lib").joinpath("logged_run.txt").read_text(encoding="utf-8")
SHORT = History(parse_log(LOG).epochs[:3]).log()
IMAGES = idx(torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5))
PROPERTY = settings(max_examples=1000, deadline=2000, derandomize=True)


def ours(kind, function, text):
    """Its result or the sentence of our own error; any other error is the test's."""
    try:
        return function(text), None
    except kind as error:
        return None, str(error)


def mutated(whole, pieces):
    """`whole` with up to six stretches of it cut out, replaced or repeated."""
    place = st.integers(0, len(whole))
    edit = st.tuples(place, st.integers(0, 40), pieces, st.integers(1, 3))

    def apply(edits):
        bent = whole
        for at, length, piece, times in edits:
            bent = bent[:at] + piece * times + bent[at + length :]
        return bent

    return st.lists(edit, max_size=6).map(apply)


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "\r",
            "\n",
            "loss=",
            "batch_id=",
            "nan",
            "inf",
            "1e999",
            "9" * 30,
            "100%|",
            "Test set:",
            "| 0/0 [00:00<?, ?it/s]",
            "10001/10000",
            "-1",
            "٣",
            "[99:99<00:00, 0.0s/it]",
            LOG[:300],
        ]
    ),
)


@PROPERTY
@given(mutated(SHORT, PIECES))
def test_a_mutated_log_is_read_or_refused(text):
    history, error = ours(LogError, parse_log, text)
    if history is None:
        assert error.startswith("line ")
    else:
        assert all(0 <= epoch.correct <= epoch.images for epoch in history)


@PROPERTY
@given(mutated(History(parse_log(SHORT).epochs).to_json(), PIECES))
def test_a_mutated_history_is_read_or_refused(text):
    history, error = ours(LogError, History.from_json, text)
    assert history.final.images > 0 if history else error


@pytest.mark.parametrize(
    "piece",
    [
        "loss=",
        "loss=1 batch_id=1:",
        "0%|",
        "100%|",
        "|",
        " ",
        "9",
        "Test set: Average loss: ",
        "loss=1 batch_id=1: 100%|",
        "\r",
        "Test set: Average loss: 1, Accuracy: ",
        "1/1 [00:00<",
    ],
)
def test_a_long_log_takes_no_more_than_its_length(piece):
    """Half a million characters on one line: no search that goes over them again and again."""
    head = "loss=1 batch_id=1: "
    start = time.perf_counter()
    for text in (piece * (500_000 // len(piece)), head + piece * (500_000 // len(piece))):
        with pytest.raises(LogError):
            parse_log(text)
    assert time.perf_counter() - start < 5


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "file"


def read(path, content):
    """The tensor, None where it is refused, and the most memory that it took, in bytes."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        tensor, error = ours(DataError, read_idx, path)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error is None or error.startswith(str(path))
    return tensor, memory


def test_mutated_data_are_read_or_refused(path):
    @PROPERTY
    @given(mutated(IMAGES, st.binary(max_size=9)) | st.binary(max_size=40))
    def check(content):
        tensor, memory = read(path, content)
        assert tensor is None or tensor.numel() <= len(content)
        assert memory < 1_000_000

    check()


@pytest.mark.parametrize(
    "header",
    [
        b"\0\0\x08\x03" + b"\xff" * 12,  # 8e28 pixels
        b"\0\0\x08\xff" + b"\xff" * 4 * 255,
        b"\0\0\x08\xff" + b"\0\0\0\1" * 255,
        b"\0\0\x08\x02" + b"\0\0\0\0" + b"\xff" * 4,
        b"\0\0\x08\x03" + b"\0\0\0\0" + b"\xff" * 8,
    ],
)
def test_a_header_of_monstrous_sizes(path, header):
    for rest in (b"", b"\0"):
        tensor, memory = read(path, header + rest)
        assert tensor is None or tensor.numel() <= 1
        assert tensor is None or tensor.dim() == header[3]
        assert memory < 1_000_000
