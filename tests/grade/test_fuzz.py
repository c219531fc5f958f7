"""Mutated logs, histories and data files: a result or our own error, in little time and memory."""

import time
import tracemalloc
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_lib import DataError, History, format_log, load_mnist, parse_log
from tests.conftest import write

LOG = resources.files("mnist_lib.grade").joinpath("logged_run.txt").read_text(encoding="utf-8")
SHORT = format_log(History(parse_log(LOG).epochs[:3]))
HEAD = "loss=1 batch_id=1: "
BINARY = st.binary(max_size=40)
PROPERTY = settings(max_examples=1000, deadline=None, derandomize=True)
HEADERS = [
    b"\0\0\x08\x03" + b"\xff" * 12,  # 8e28 pixels
    b"\0\0\x08\xff" + b"\xff" * 4 * 255,
    b"\0\0\x08\xff" + b"\0\0\0\1" * 255,
    b"\0\0\x08\x02" + b"\0\0\0\0" + b"\xff" * 4,
    b"\0\0\x08\x03" + b"\0\0\0\0" + b"\xff" * 8,
]


def ours(function, argument):
    """Its result or the message of our own error, within 2 seconds of CPU time."""
    start = time.process_time()
    try:
        return function(argument), None
    except DataError as error:
        return None, str(error)
    finally:
        assert time.process_time() - start < 2


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


PIECES = st.text(max_size=20) | st.sampled_from(
    [
        *("\r", "\n", "loss=", "batch_id=", "nan", "inf", "1e999", "9" * 30, "100%|", "Test set:"),
        *("| 0/0 [00:00<?, ?it/s]", "10001/10000", "-1", "٣", "[99:99<00:00, 0.0s/it]"),
        *("[", "]", "null", "true", '"correct": ', LOG[:300]),
    ]
)


@PROPERTY
@given(mutated(SHORT, PIECES))
def test_a_mutated_log_is_read_or_refused(text):
    history, error = ours(parse_log, text)
    assert history or error.startswith("line ")
    assert all(0 <= epoch.correct <= epoch.images for epoch in history or ())


@PROPERTY
@given(mutated(parse_log(SHORT).to_json(), PIECES))
def test_a_mutated_history_is_read_or_refused(text):
    history, error = ours(History.from_json, text)
    assert history.final.images > 0 if history else error


@pytest.mark.parametrize(
    "piece",
    [
        *("loss=", HEAD, "0%|", "100%|", "|", " ", "9", "\r", f"{HEAD}100%|", "1/1 [00:00<"),
        *(f"{HEAD}100%|{' ' * 1000}||", f"L{HEAD[1:].replace('b', 'B')[:-2]} Accuracy=1: 1%|"),
        *("Test set: Average loss: ", "Test set: Average loss: 1, Accuracy: "),
        *("test 1/2 ", "test 1/2 9%|", "test 1/2 99%| 1/2 [", "Total params: \x1b["),
    ],
)
def test_a_long_log_takes_no_more_than_its_length(piece):
    """Half a million characters are on one line: no search may go over them again and again."""
    start = time.process_time()
    for head in ("", HEAD):
        with pytest.raises(DataError):
            parse_log(head + piece * (500_000 // len(piece)))
    assert time.process_time() - start < 5


def test_mutated_data_are_read_or_refused(tmp_path, idx_files, cache):
    """One of the four files is bent; its header may even claim monstrous sizes."""

    def check(name, content):
        folder = write(tmp_path / "data", idx_files | {name: content})
        tracemalloc.start()
        data, error = ours(load_mnist, folder)
        # Python's table of interned strings may grow meanwhile, by some tens of megabytes.
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
        tracemalloc.stop()
        assert (data is None) == (content != idx_files[name])
        assert data or f"{folder / name} is not MNIST's" in error

    for name, whole in idx_files.items():
        bent = mutated(whole, BINARY) | BINARY
        settings(PROPERTY, max_examples=250)(given(st.just(name), bent)(check))()
    for content in (header + rest for header in HEADERS for rest in (b"", b"\0")):
        check("train-images-idx3-ubyte", content)
