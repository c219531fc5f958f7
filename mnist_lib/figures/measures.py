"""Measurements of a trained net: what it sees, how sure it is, how robust it is."""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn as nn
from torch import Tensor

from .. import evaluation
from ..augment import MOVES, augment, denormalize, normalize
from ..base.arrays import as_images, as_labels
from ..base.errors import check
from ..recipe import get_recipe
from .layers import hook_leaves

# The kinds that `distort` applies, and the unit of their amounts.
DISTORTIONS = {
    "rotation": "degrees, clockwise",
    "shift": "pixels, to the right",
    "scale": "share of the size",
    "noise": "standard deviation, 1 is white",
}


@torch.no_grad()
def feature_maps(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Each layer's output for one uint8 image (28, 28): float32 (C, H, W) by layer name.

    For a `Views` net, only the inner net's.
    """
    with _outputs(net) as maps:
        evaluation.unwrapped(net)(_inputs(net, image)[:1])
    return {name: output[0].cpu() for name, output in maps.items() if output.dim() == 4}


@contextlib.contextmanager
def _outputs(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Layer outputs by name, from the last call in the block; the net is in evaluation mode."""
    net, maps = evaluation.unwrapped(net), {}
    with evaluation.in_mode(net, training=False), contextlib.ExitStack() as hooks:
        for hook in hook_leaves(net, lambda name, *call: maps.update({name: call[-1]})):
            hooks.enter_context(hook)
        yield maps


def _inputs(net: nn.Module, images: Tensor) -> Tensor:
    """The images as the input of the net inside its wrappers."""
    images = as_images(images).to(evaluation.device_of(net))
    return normalize(images, *evaluation.scale_of(net))


def effective_receptive_field(net: nn.Module, layer: str, images: Tensor) -> Tensor:
    """How much each pixel affects the middle output of a layer: (28, 28), summing to 1.

    The mean absolute gradient over the layer's channels and the uint8 images (N, 28, 28): Luo et
    al., "Understanding the Effective Receptive Field", 2016. For a `Views` net, only the inner net.
    """
    inputs = _inputs(net, images).requires_grad_()
    with _outputs(net) as maps, torch.enable_grad():
        evaluation.unwrapped(net)(inputs)
        check("layer", layer, layer in maps, f"one of {', '.join(maps)}")
        output = maps[layer]
        middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        field = torch.zeros_like(inputs)
        for channel in middle.sum(dim=0):
            field += torch.autograd.grad(channel, inputs, retain_graph=True)[0].abs()
    field = field.sum(dim=(0, 1)).cpu()
    return field / field.sum()


def saliency(net: nn.Module, images: Tensor) -> Tensor:
    """How much each pixel of uint8 images (N, 28, 28) affects the answer: float32 (N, 28, 28).

    The absolute gradient of the most probable digit's log-probability, scaled per image to at most
    1: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014.
    """
    images = as_images(images).to(evaluation.device_of(net))
    logits = evaluation.are_logits(evaluation.scores(net, images))
    answer = evaluation.log_probabilities(net, logits)
    inputs = normalize(images).requires_grad_()
    with evaluation.in_mode(net, training=False), torch.enable_grad():
        best = answer(inputs).max(dim=1).values.sum()
        slope = torch.autograd.grad(best, inputs)[0].squeeze(1).abs().cpu()
    return slope / slope.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def distort(images: Tensor, kind: str, amount: float, seed: int = 0) -> Tensor:
    """Distort uint8 images (N, 28, 28), all by the same signed amount; `seed` is for noise."""
    check("kind", kind, kind in DISTORTIONS, f"one of {', '.join(DISTORTIONS)}")
    if not amount:
        return images
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + 255 * amount * noise).round().clamp(0, 255).to(torch.uint8)
    moves = torch.zeros(len(images), len(MOVES), device=images.device)
    moves[:, MOVES.index("right" if kind == "shift" else kind)] = 1 if amount > 0 else -1
    return denormalize(augment(images, moves, get_recipe("assignment", **{kind: abs(amount)})))


def robustness(
    net: nn.Module, images: Tensor, labels: Tensor, kind: str, amounts: list[float]
) -> list[float]:
    """Accuracy (%) on uint8 images (N, 28, 28) with labels (N,), at each amount of distortion."""
    images = as_images(images)
    labels = as_labels(labels, len(images)).cpu()
    changed = (distort(images, kind, amount) for amount in amounts)
    right = (evaluation.infer(net, images).argmax(dim=1).cpu() == labels for images in changed)
    return [100 * correct.float().mean().item() for correct in right]


def calibration(labels: Tensor, log_probabilities: Tensor) -> list[tuple[float, float, int]]:
    """Mean confidence (%), accuracy (%) and number of images in each non-empty tenth of confidence.

    Takes labels (N,) and log-probabilities (N, 10).
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    right = (predictions == as_labels(labels, len(predictions)).cpu()).float()
    tenths = (10 * confidence).long().clamp(max=9)
    bins = [(confidence[tenths == at], right[tenths == at]) for at in tenths.unique()]
    return [(100 * sure.mean().item(), 100 * hit.mean().item(), len(hit)) for sure, hit in bins]


def expected_calibration_error(labels: Tensor, log_probabilities: Tensor) -> float:
    """Mean gap (points) in `calibration`, weighted by images (Naeini, Cooper, Hauskrecht 2015)."""
    bins = calibration(labels, log_probabilities)
    return sum(abs(right - sure) * images for sure, right, images in bins) / len(labels)
