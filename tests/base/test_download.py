"""The four files of MNIST, against torchvision's reader and a local server."""

import gzip
import os
import socket
import sys
import time

import pytest
import torch
from torchvision.datasets import MNIST as TorchvisionMNIST

from mnist_lib import DataError, load_mnist
from mnist_lib.base import download
from mnist_lib.base.files import ASIDE
from tests.conftest import idx, serve, small_files, write

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def test_reads_what_torchvisions_reader_reads(tmp_path, idx_files, cache):
    """The names are the same, and so are the values."""
    data = load_mnist(write(tmp_path / "MNIST" / "raw", idx_files).parents[1])
    for part in ("train", "test"):
        theirs = TorchvisionMNIST(tmp_path, train=part == "train")
        assert torch.equal(getattr(data, f"{part}_images"), theirs.data)
        assert torch.equal(getattr(data, f"{part}_labels"), theirs.targets)
    assert (data.source, data.train_labels.dtype) == ("mnist", torch.int64)


@pytest.mark.parametrize("variable", ["data_dir", "MNIST_DATA"])
@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_damaged_file_in_a_named_folder_is_refused(
    tmp_path, idx_files, cache, monkeypatch, variable, source
):
    named, whole = {variable: str(tmp_path)}, idx_files[IMAGES]
    monkeypatch.setenv("MNIST_DATA", named.get("MNIST_DATA", ""))
    for damaged in (whole[:-1], whole[:-1] + b"\1", b"<html>", b""):
        write(tmp_path, idx_files | {IMAGES: damaged})
        with pytest.raises(DataError, match=f"{variable}: .*{IMAGES} is not MNIST's .* replace it"):
            load_mnist(named.get("data_dir"), source)


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


def test_a_whole_copy_is_taken_beside_a_damaged_one(tmp_path, idx_files, cache, capsys):
    for name, content in idx_files.items():
        write(tmp_path, {name: content[:-9], f"{name}.gz": gzip.compress(content)})
    assert idx(load_mnist(tmp_path, "mnist").train_images) == idx_files[IMAGES]
    assert f"{IMAGES} is not MNIST's" in capsys.readouterr().err


def test_missing_files_are_named_and_a_stray_one_hides_none(tmp_path, idx_files, cache):
    write(tmp_path, idx_files)
    write(tmp_path / "MNIST" / "raw", {LABELS: b"stray"})
    assert load_mnist(tmp_path, "mnist").source == "mnist"
    (tmp_path / LABELS).unlink()
    with pytest.raises(DataError, match=f"lacks {LABELS}; all four are needed"):
        load_mnist(tmp_path)


def test_what_stands_in_a_mirrors_place(idx_files, cache, mirrors, monkeypatch):
    """A server that never answers, a string that is no address, and an empty page.

    There is no stderr either, on which a bar could be shown.
    """
    serve(mirrors, "two", idx_files)
    monkeypatch.setattr(sys, "stderr", None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        mirrors.addresses[:] = [silent, "no address/", f"{mirrors.url}none/"]
        begun = time.monotonic()
        assert load_mnist(source="mnist").source == "mnist"
    assert time.monotonic() - begun < download.TIMEOUT


@pytest.mark.parametrize("mirror", ["one", "two"])
def test_fetched_once_from_either_mirror(idx_files, cache, mirrors, mirror):
    serve(mirrors, mirror, idx_files)
    data = load_mnist(source="mnist")
    assert idx(data.test_images) == idx_files["t10k-images-idx3-ubyte"]
    assert set(mirrors.served) == {f"/{mirror}/{name}.gz" for name in idx_files}
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == idx_files
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


def test_all_mirrors_together_have_so_many_seconds(idx_files, cache, mirrors, monkeypatch):
    """Even if no connection times out, because bytes keep coming."""
    mirrors.slow = 3000
    monkeypatch.setattr(download, "TIMEOUT", 1)
    begun = time.monotonic()
    hosts = f"127.0.0.1:{mirrors.server_port}"
    with pytest.raises(DataError, match=rf"no answer within 1 s \({hosts}, {hosts}\); asked the"):
        load_mnist(source="mnist")
    assert time.monotonic() - begun < 20


def test_a_download_cut_short_or_not_to_be_written_leaves_nothing(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    mirrors.cut = 100
    with pytest.raises(DataError, match="MNIST cannot be had"):
        load_mnist(source="mnist")
    assert list(cache.iterdir()) == []
    mirrors.cut, refused = None, f"the cache {cache} cannot be used: .*File too large.*MNIST_DATA"
    with small_files(), pytest.raises(DataError, match=refused):
        load_mnist(source="mnist")
    assert list(cache.iterdir()) == []
    assert load_mnist(source="mnist").source == "mnist"


def test_damaged_file_in_our_cache_is_fetched_anew(idx_files, cache, mirrors):
    """What a killed download has left is swept away as well, if it is a day old."""
    serve(mirrors, "one", idx_files)
    write(cache, idx_files | {LABELS: b"half"})
    for name, age in (("old", 2 * 24 * 3600), ("running", 60)):
        write(cache / f"{ASIDE}{name}", {"half": b""})
        os.utime(cache / f"{ASIDE}{name}", (time.time() - age,) * 2)
    assert len(load_mnist(source="mnist").train_labels) == 60
    assert set(mirrors.served) == {f"/one/{LABELS}.gz"}, "only the damaged one"
    assert [path.name for path in cache.glob(f"{ASIDE}*")] == [f"{ASIDE}running"]


def test_unusable_cache_is_named(idx_files, cache, mirrors):
    write(cache.parents[2], {cache.parents[1].name: b"a file where a folder should be"})
    with pytest.raises(DataError, match=f"the cache {cache} cannot be used"):
        load_mnist(source="mnist")
