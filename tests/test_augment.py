"""Augmentation against rotations, shifts and crops that are done by hand."""

import dataclasses

import pytest
import torch

from mnist_lib import augment, draw, get_recipe, normalize

PLAIN = get_recipe("logged")


def recipe(**changes):
    return dataclasses.replace(PLAIN, **changes)


def numbers(turn=0.0, size=0.0, right=0.0, down=0.0):
    return torch.tensor([[turn, size, right, down]])


@pytest.fixture
def image():
    """One image, empty but for what lies within all of its shifts by three pixels."""
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[:, 4:22, 6:20] = torch.randint(
        256, (18, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return image


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_without_augmentation_it_is_normalize(sample):
    images = sample.train_images[:4]
    none = draw(4, PLAIN, torch.Generator())
    assert none.shape == (4, 0)
    assert torch.equal(augment(images, none, PLAIN), normalize(images))


def test_numbers_in_the_middle_change_nothing(image):
    close(augment(image, numbers(), recipe(rotation=30, shift=3, scale=0.5)), normalize(image))


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-1, 1), (1 / 3, -2 / 3)])
def test_shift_is_in_pixels_to_the_right_and_down(image, right, down):
    moved = image.roll((round(3 * down), round(3 * right)), dims=(1, 2))
    close(augment(image, numbers(right=right, down=down), recipe(shift=3)), normalize(moved))


@pytest.mark.parametrize("turns", [-1, 1])
def test_rotation_is_in_degrees(image, turns):
    # The right becomes the bottom: clockwise on the screen, which rot90 counts backwards.
    turned = image.rot90(-turns, dims=(1, 2))
    close(augment(image, numbers(turn=turns), recipe(rotation=90)), normalize(turned))


def test_scale_enlarges():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[:, 9:19, 9:19] = 255  # 10 pixels square
    black = normalize(torch.zeros(1, 28, 28, dtype=torch.uint8))
    white = normalize(image).max() - black.max()
    for size, area in ((1, 15**2), (-1, 5**2), (0, 10**2)):
        light = (augment(image, numbers(size=size), recipe(scale=0.5)) - black).sum() / white
        assert light.item() == pytest.approx(area, rel=0.1)


@pytest.mark.parametrize("crop", [20, 24, 26])
def test_crop_is_the_middle(image, crop):
    margin = (28 - crop) // 2
    whole = augment(image, numbers(turn=0.3, right=0.7), recipe(rotation=20, shift=2))
    middle = augment(image, numbers(turn=0.3, right=0.7), recipe(rotation=20, shift=2, crop=crop))
    close(middle, whole[..., margin : 28 - margin, margin : 28 - margin])


def test_what_comes_from_outside_is_background():
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    black, result = normalize(white * 0), augment(white, numbers(right=1), recipe(shift=5))
    close(result[..., :5], black[..., :5])
    close(result[..., 5:], normalize(white)[..., 5:])


def test_each_image_its_own_way(image):
    many = image.expand(64, -1, -1)
    way = recipe(rotation=10, shift=1, scale=0.1)
    drawn = draw(64, way, torch.Generator().manual_seed(0))
    assert -1 <= drawn.min() < -0.9 < 0.9 < drawn.max() <= 1
    result = augment(many, drawn, way)
    assert len(result.flatten(1).unique(dim=0)) == 64
    close(result[5:6], augment(image, drawn[5:6], way))


def test_the_seed_fixes_it():
    way = recipe(rotation=10)
    first, again, other = (draw(9, way, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
