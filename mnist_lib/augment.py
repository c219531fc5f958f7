"""Augmentation: every image of a batch turned, resized and shifted a little, each its own way."""

import torch
import torch.nn.functional as F

from .data import normalize
from .recipe import Recipe


def draw(count: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """The random numbers that `augment` takes for `count` images: uniform in -1..1, (count, 4).

    None are drawn, (count, 0), where the recipe does not augment.
    """
    return 2 * torch.rand(count, 4 if recipe.augments else 0, generator=generator) - 1


def augment(images: torch.Tensor, numbers: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """The net's input, augmented as the recipe says: uint8 (N, 28, 28) to float32 (N, 1, C, C).

    `numbers`, from `draw`: each image's turn, size and shift to the right and down, within the
    recipe's `rotation`, `scale` and `shift`, all about the image's middle, and bilinear. Of the
    result, the middle C pixels square are made, the recipe's `crop`. Where the recipe has none of
    the three, the same as `normalize(images)`, whole.
    """
    if not recipe.augments:
        return normalize(images)
    turn, size, right, down = numbers.view(-1, 4, 1, 1).unbind(dim=1)  # each (N, 1, 1)
    # Where each output pixel comes from, hence all the other way round than what the image does;
    # in grid_sample's unit, half an image's side. (affine_grid is five times as slow.)
    angle, zoom = torch.deg2rad(recipe.rotation * turn), 1 / (1 + recipe.scale * size)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    side = images.shape[-1]
    x = torch.arange(1 - recipe.crop, recipe.crop, 2, device=images.device) / side  # (C,)
    y = x.view(-1, 1) - 2 * recipe.shift / side * down  # (N, C, 1)
    x = x - 2 * recipe.shift / side * right  # (N, 1, C)
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)  # (N, C, C, 2)
    pixels = F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False)
    return normalize(pixels.squeeze(1))  # after: what lies outside the image is background, 0
