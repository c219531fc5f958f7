"""The four files of MNIST: found, downloaded, verified, read.

Their names, MD5 and layout are torchvision's (`torchvision.datasets.MNIST`, `root=`).
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
import time
import zlib
from pathlib import Path

import torch
from platformdirs import user_cache_path

from .errors import DataError

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
TIMEOUT = 20  # seconds without an answer from a mirror


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
    """The four files of our own cache; those missing or damaged are downloaded.

    `looked` tells where they were looked for before, for the message of the DataError that is
    raised if no mirror gives one.
    """
    folder = user_cache_path("mnist_lib") / "MNIST" / "raw"
    files = [folder / name for name in FILES]
    try:
        contents = {file: _content(file) if file.is_file() else b"" for file in files}
        wanted = [file for file in files if _md5(contents[file]) != FILES[file.name]]
        if wanted:
            damaged = [file.name for file in wanted if file.exists()]
            lacking = ", ".join(file.name for file in wanted)
            looked = [*looked, f"the cache {folder} lacks {lacking}"]
            if damaged:
                looked.append(f"damaged there: {', '.join(damaged)}")
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            # Written aside and renamed: two first runs at once each leave whole files only.
            with tempfile.TemporaryDirectory(dir=folder, prefix="part-") as aside:
                for file in wanted:
                    os.replace(_download(file.name, Path(aside), looked), file)
                    contents[file] = _content(file)
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be used: {error}") from None
    return list(contents.values())


def _sweep(folder: Path) -> None:
    """Remove what downloads that were killed left aside more than a day ago."""
    for part in folder.glob("part-*"):
        with contextlib.suppress(FileNotFoundError):  # another download has just ended
            if time.time() - part.stat().st_mtime > 24 * 3600:
                shutil.rmtree(part, ignore_errors=True)


def _download(name: str, aside: Path, looked: list[str]) -> Path:
    """Fetch one file into the folder `aside` from the first mirror that gives it whole."""
    from torchvision.datasets import MNIST as TorchvisionMNIST
    from torchvision.datasets.utils import download_and_extract_archive

    tried = []
    for mirror in (*TorchvisionMNIST.mirrors, EXTRA_MIRROR):
        url = f"{mirror}{name}.gz"
        print(f"Downloading {url}", file=sys.stderr)
        place = aside / str(len(tried))
        try:
            with _socket_timeout(TIMEOUT):
                download_and_extract_archive(url, download_root=str(place), remove_finished=True)
        except (OSError, EOFError, RuntimeError, zlib.error, http.client.HTTPException) as error:
            shutil.rmtree(place, ignore_errors=True)
            tried.append(f"{mirror} ({error or type(error).__name__})")
            continue
        if _md5(_content(place / name)) == FILES[name]:
            return place / name
        tried.append(f"{mirror} (gave another file: wrong MD5)")
    raise DataError(
        f"MNIST was not found ({'; '.join(looked)}) and {name} could not be downloaded "
        f"(tried {'; '.join(tried)}): put {', '.join(FILES)} into a folder and name it as "
        "data_dir or in MNIST_DATA"
    )


@contextlib.contextmanager
def _socket_timeout(seconds: float):
    # torchvision opens its connections without a timeout: a silent mirror would hang for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
