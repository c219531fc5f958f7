"""The four files of MNIST, against torchvision's reader and a local server."""

import gzip
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST as TorchvisionMNIST

from mnist_lib import DataError, download, load_mnist, wheel
from mnist_lib.files import ASIDE

from .conftest import idx, serve, write

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def test_reads_what_torchvisions_reader_reads(tmp_path, idx_files, cache):
    data = load_mnist(write(tmp_path / "MNIST" / "raw", idx_files).parents[1])
    train, test = (TorchvisionMNIST(tmp_path, train=train) for train in (True, False))
    assert torch.equal(data.train_images, train.data)
    assert torch.equal(data.train_labels, train.targets)
    assert torch.equal(data.test_images, test.data)
    assert torch.equal(data.test_labels, test.targets)
    assert (data.source, data.train_labels.dtype) == ("mnist", torch.int64)


def test_the_names_are_torchvisions():
    assert set(download.FILES) == {Path(url).stem for url, _ in TorchvisionMNIST.resources}


@pytest.mark.parametrize("variable", ["data_dir", "MNIST_DATA"])
@pytest.mark.parametrize("source", ["auto", "mnist"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: b"<html>",
        lambda content: content[:-1] + b"\1",
        lambda content: b"",
    ],
    ids=["truncated", "html", "altered", "empty"],
)
def test_damaged_file_in_a_named_folder_is_refused(
    tmp_path, idx_files, cache, monkeypatch, variable, source, change
):
    idx_files[IMAGES] = change(idx_files[IMAGES])
    folder = write(tmp_path / "named", idx_files)
    if variable == "MNIST_DATA":
        monkeypatch.setenv("MNIST_DATA", str(folder))
    with pytest.raises(DataError, match=f"{variable}: .*{IMAGES} is not MNIST's .* replace it"):
        load_mnist(folder if variable == "data_dir" else None, source)


@pytest.mark.parametrize("inner", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_files_as_people_have_them(tmp_path, idx_files, cache, inner, packed, dotted):
    """Packed, with a dot in their names, in torchvision's folders or by themselves."""
    for name, content in idx_files.items():
        called = (name.replace("-idx", ".idx") if dotted else name) + ".gz" * packed
        write(tmp_path / inner, {called: gzip.compress(content) if packed else content})
    assert idx(load_mnist(tmp_path, "mnist").train_images) == idx_files[IMAGES]
    path = tmp_path / inner / called
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{path.name} is not MNIST's .* truncated or altered"):
        load_mnist(tmp_path, "mnist")


def test_missing_files_are_named(tmp_path, idx_files, cache):
    del idx_files[LABELS]
    with pytest.raises(DataError, match=f"lacks {LABELS}; all four are needed"):
        load_mnist(write(tmp_path / "part", idx_files))


def test_stray_file_does_not_hide_whole_ones(tmp_path, idx_files, cache):
    write(tmp_path, idx_files)
    write(tmp_path / "MNIST" / "raw", {LABELS: b"stray"})
    assert load_mnist(tmp_path, "mnist").source == "mnist"


def test_what_stands_in_a_mirrors_place(idx_files, cache, mirrors, monkeypatch):
    """What is no address, and a page of nothing; with no stderr to show a bar on."""
    serve(mirrors, "two", idx_files)
    monkeypatch.setattr(TorchvisionMNIST, "mirrors", ["no address/", f"{mirrors.url}none/"])
    monkeypatch.setattr(sys, "stderr", None)
    begun = time.monotonic()
    assert load_mnist(source="mnist").source == "mnist"
    assert time.monotonic() - begun < download.TIMEOUT


@pytest.mark.parametrize("mirror", ["one", "two"])
def test_fetched_once_from_either_mirror(idx_files, cache, mirrors, monkeypatch, mirror):
    """A file is in the cache only once it is whole, and nothing else is left there."""
    serve(mirrors, mirror, idx_files)
    rename, moved = os.replace, []

    def replace(source, target):
        assert source.read_bytes() == idx_files[target.name]
        assert not target.exists()
        moved.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    data = load_mnist(source="mnist")
    assert idx(data.test_images) == idx_files["t10k-images-idx3-ubyte"]
    assert set(mirrors.served) == {f"/{mirror}/{name}.gz" for name in idx_files}
    assert moved == [cache / name for name in idx_files]
    assert sorted(cache.iterdir()) == sorted(moved)
    mirrors.asked.clear()
    load_mnist(source="mnist")
    assert mirrors.asked == [], "the second time from the cache"


@pytest.mark.parametrize(
    "content",
    [
        b"<html>down for maintenance</html>",
        b"",
        b"\x1f\x8b\x08\0\0\0\0\0\0\3garbage",
        gzip.compress(idx(torch.zeros(60, 28, 28, dtype=torch.uint8))),
    ],
    ids=["html", "empty", "garbage", "another file"],
)
def test_a_mirror_that_gives_rubbish_is_passed_over(idx_files, cache, mirrors, content):
    serve(mirrors, "two", idx_files)
    mirrors.pages[f"/one/{IMAGES}.gz"] = content
    assert idx(load_mnist(source="mnist").train_images) == idx_files[IMAGES]


def test_a_silent_mirror_does_not_hang(idx_files, cache, mirrors, monkeypatch):
    serve(mirrors, "two", idx_files)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the connection, never answers
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        monkeypatch.setattr(TorchvisionMNIST, "mirrors", [address])
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
        assert load_mnist(source="mnist").source == "mnist"


def test_all_mirrors_together_have_so_many_seconds(idx_files, cache, mirrors, monkeypatch):
    """Also if a name is looked up for longer, which no time limit of a connection ends."""
    monkeypatch.setattr(download, "_open", lambda *request: time.sleep(60))
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    begun = time.monotonic()
    hosts = f"127.0.0.1:{mirrors.server_port}"
    with pytest.raises(DataError, match=rf"no answer within 0.2 s \({hosts}, {hosts}\); asked the"):
        load_mnist(source="mnist")
    assert time.monotonic() - begun < 10


def test_a_download_cut_short_leaves_nothing(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    mirrors.cut = 100
    with pytest.raises(DataError, match="MNIST cannot be had"):
        load_mnist(source="mnist")
    assert list(cache.iterdir()) == []
    mirrors.cut = None
    assert load_mnist(source="mnist").source == "mnist"


def test_damaged_file_in_our_cache_is_fetched_anew(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    write(cache, idx_files | {LABELS: b"half"})
    assert len(load_mnist(source="mnist").train_labels) == 60
    assert set(mirrors.served) == {f"/one/{LABELS}.gz"}, "only the damaged one"


def test_what_a_killed_download_left_is_swept_away(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    for name, age in (("old", 2 * 24 * 3600), ("running", 60)):
        write(cache / f"{ASIDE}{name}", {"half": b""})
        os.utime(cache / f"{ASIDE}{name}", (time.time() - age,) * 2)
    load_mnist(source="mnist")
    assert [path.name for path in cache.glob(f"{ASIDE}*")] == [f"{ASIDE}running"]


def test_unusable_cache_is_named(idx_files, cache, mirrors):
    write(cache.parents[2], {cache.parents[1].name: b"a file where a folder should be"})
    with pytest.raises(DataError, match=f"the cache {cache} cannot be used"):
        load_mnist(source="mnist")


def _first_run(md5, sha256, mirror, cache, barrier, results):
    TorchvisionMNIST.mirrors, download.FILES, wheel.SHA256 = [mirror], md5, sha256
    download.EXTRA_MIRROR = mirror
    download.user_cache_path = lambda name: Path(cache) / name
    barrier.wait()
    results.put(load_mnist(source="mnist").train_images.sum().item())


def two_first_runs(mirror, folder):
    """Begun at once by new processes, which have the cache in `folder`."""
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    args = (download.FILES, wheel.SHA256, mirror, str(folder), barrier, results)
    runs = [spawn.Process(target=_first_run, args=args) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert results.get() == results.get()


def test_two_first_runs_at_once(tmp_path, idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    two_first_runs(f"{mirrors.url}one/", tmp_path / "cache")
    assert sorted(path.name for path in cache.iterdir()) == sorted(idx_files)
