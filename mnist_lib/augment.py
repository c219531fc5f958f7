"""How an image reaches the net: normalised, randomly moved in training, seen in four views.

A net's input is always (pixel / 255 - 0.1307) / 0.3081; wrap a net of another scale in `Rescaled`.

A `recipe` may be any object with the fields used here. If you add a motion, draw its numbers after
those of `random_affine`, and only for recipes that use it: others then draw as before.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .base.arrays import as_images
from .base.errors import check, is_finite

MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels, scaled to 0..1
MOVES = ("rotation", "scale", "right", "down")  # the columns of random_affine


def normalize(images: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """uint8 images (N, 28, 28) to the net's input: float32 (N, 1, 28, 28), mean 0, sd 1.

    The same as torchvision's ToTensor and Normalize((0.1307,), (0.3081,)).
    """
    return _standardize(_as_bytes(images), mean, std)


def denormalize(inputs: Tensor) -> Tensor:
    """The inverse of `normalize`, rounded: float32 (N, 1, H, W) to uint8 (N, H, W)."""
    return (255 * (STD * inputs.squeeze(1) + MEAN)).round().clamp(0, 255).to(torch.uint8)


def _as_bytes(images) -> Tensor:
    """Images as uint8 (N, H, W): unchecked if they already are, else as `as_images` makes them."""
    ready = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.dim() == 3
    return images if ready else as_images(images)


def _standardize(images: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    return images.unsqueeze(1).float().div_(255).sub_(mean).div_(std)


def random_affine(count: int, recipe, generator: torch.Generator) -> Tensor:
    """Random moves for `augment`: uniform in -1..1, (count, 4), a column for each of MOVES."""
    shape = (count, len(MOVES) if recipe.augments else 0)  # nothing is drawn for (count, 0)
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") - 1


def augment(images: Tensor, moves: Tensor, recipe, side: int | None = None) -> Tensor:
    """The net's input, augmented by the recipe: uint8 (N, 28, 28) to float32 (N, 1, C, C).

    `moves` (N, 4), from `random_affine`: each image's rotation (clockwise), size and shift (right
    and down), as shares of the recipe's `rotation`, `scale` and `shift`. Rotates and scales about
    the middle, with bilinear interpolation. Only the middle C x C pixels are computed: `side`, by
    default the recipe's `crop`. A recipe that does not augment gives `normalize(images)`, whole.
    """
    if not recipe.augments:
        return normalize(images)
    images = _as_bytes(images)
    turn, size, right, down = moves.view(-1, len(MOVES), 1, 1).unbind(dim=1)  # each (N, 1, 1)
    # grid_sample maps output to input, so every motion is inverted. Unit: half an image's side.
    angle, zoom = torch.deg2rad(recipe.rotation * turn), 1 / (1 + recipe.scale * size)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    whole, side = images.shape[-1], side or recipe.crop
    at = torch.arange(1 - side, side, 2, device=images.device).float() / whole  # (C,)
    x = at - 2 * recipe.shift / whole * right  # (N, 1, C)
    y = at.view(-1, 1) - 2 * recipe.shift / whole * down  # (N, C, 1)
    # Stacked as two planes, half the work of interleaving them; grid_sample reads either.
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x]).movedim(0, -1)  # (N, C, C, 2)
    pixels = F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False)
    return _standardize(pixels.squeeze(1))  # after: outside the image is 0, background


class Views(nn.Module):
    """A net that returns, in evaluation, the log of its mean probabilities over four views.

    Test-time augmentation (Krizhevsky, Sutskever and Hinton 2012). The views are the corners of the
    recipe's augmentation: moved by its `shift` right or left and down or up, and turned by its
    `rotation`, two one way and two the other. It adds no parameter. In training it is the `net`
    itself; in evaluation it takes four times as long.
    """

    def __init__(self, net: nn.Module, recipe):
        super().__init__()
        self.module = net  # the name that DataParallel uses
        maps = []
        for right, down in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            angle, unit = math.radians(recipe.rotation * right * down), recipe.shift / 14
            cos, sin, x, y = math.cos(angle), math.sin(angle), unit * right, unit * down
            # From output to input, so every motion is inverted. Unit: half an image's side.
            maps.append([[cos, sin, -cos * x - sin * y], [-sin, cos, sin * x - cos * y]])
        self.register_buffer("maps", torch.tensor(maps).float(), persistent=False)

    def forward(self, x):  # (N, 1, 28, 28)
        if self.training:
            return self.module(x)
        grids = F.affine_grid(self.maps, (len(self.maps), *x.shape[1:]), align_corners=False)
        grids = grids.unsqueeze(1).expand(-1, x.shape[0], -1, -1, -1)  # (4, N, 28, 28, 2)
        # Beyond the image the rim continues: it is background, whatever its value.
        views = [F.grid_sample(x, g, padding_mode="border", align_corners=False) for g in grids]
        answers = torch.stack([self.module(view) for view in views])  # (4, N, 10)
        return answers.logsumexp(0) - math.log(len(answers))


class Rescaled(nn.Module):
    """A net that was trained on inputs of another scale: (pixel / 255 - mean) / std.

    Takes what `normalize` returns. `Rescaled(net, 0.5, 0.5)` is for Normalize((0.5,), (0.5,)),
    `Rescaled(net, 0, 1)` for ToTensor alone, `Rescaled(net, 0, 1 / 255)` for pixels up to 255. It
    adds no parameter; `save_run` writes the weights of the net inside.
    """

    def __init__(self, net: nn.Module, mean: float, std: float):
        super().__init__()
        is_net = isinstance(net, nn.Module)
        bare = is_net and not any(isinstance(part, Rescaled) for part in net.modules())
        check("net", net, bare, "a torch.nn.Module, and not in Rescaled yet")
        check("mean", mean, is_finite(mean), "a number, of pixels from 0 to 1")
        check("std", std, is_finite(std) and std != 0, "a number other than 0")
        self.module, self.mean, self.std = net, mean, std

    def forward(self, x):  # (N, 1, H, W), as from `normalize`
        return self.module((x * STD + (MEAN - self.mean)) / self.std)
