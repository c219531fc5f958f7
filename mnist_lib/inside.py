"""What goes on in a trained net, what it gets wrong, and how much a digit may change."""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn as nn

from .arrays import as_images
from .augment import MOVES, augment, denormalize, normalize
from .errors import check
from .evaluation import device_of, evaluating, infer, log_probabilities, unwrapped
from .recipe import get_recipe

# What `distort` does to digits, and the unit of how much.
DISTORTIONS = {
    "rotation": "degrees, clockwise",
    "shift": "pixels, to the right",
    "scale": "share of the size",
    "noise": "standard deviation, 1 is white",
}


@torch.no_grad()
def feature_maps(net: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer makes of one uint8 image (28, 28): by its name, float32 (C, H, W).

    Of a net of views, the net inside. Raises ParameterError as `infer` does.
    """
    net = unwrapped(net)
    with _outputs(net) as maps:
        infer(net, as_images(image)[:1])
    return {name: output[0].cpu() for name, output in maps.items() if output.dim() == 4}


@contextlib.contextmanager
def _outputs(net: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """The layers' outputs by their names, of the last call meanwhile, in evaluation mode."""
    maps = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output}))
        for name, module in net.named_modules()
        if not list(module.children())
    ]
    try:
        with evaluating(net):
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


def effective_receptive_field(net: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """How much each pixel moves the middle output of a layer: (28, 28), with a sum of 1.

    The mean size of the gradient, over the layer's channels and the uint8 images (N, 28, 28): Luo
    et al., "Understanding the Effective Receptive Field", 2016. Of a net of views, the net inside.
    Raises ParameterError for a layer that the net does not have.
    """
    net = unwrapped(net)
    inputs = normalize(as_images(images).to(device_of(net))).requires_grad_()
    with _outputs(net) as maps, torch.enable_grad():
        net(inputs)
        check("layer", layer, layer in maps, f"one of {', '.join(maps)}")
        output = maps[layer]
        middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        field = torch.zeros_like(inputs)
        for channel in middle.sum(dim=0):
            field += torch.autograd.grad(channel, inputs, retain_graph=True)[0].abs()
    field = field.sum(dim=(0, 1)).cpu()
    return field / field.sum()


def saliency(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """How much each pixel moves the net's answer: of uint8 images (N, 28, 28), float32 alike.

    The size of the gradient of the log-probability of the most probable digit, the largest of an
    image 1: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014.
    """
    images = as_images(images).to(device_of(net))
    answer = log_probabilities(net, images)
    inputs = normalize(images).requires_grad_()
    with evaluating(net), torch.enable_grad():
        best = answer(inputs).max(dim=1).values.sum()
        slope = torch.autograd.grad(best, inputs)[0].squeeze(1).abs().cpu()
    return slope / slope.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def distort(images: torch.Tensor, kind: str, amount: float, seed: int = 0) -> torch.Tensor:
    """uint8 images (N, 28, 28), all changed alike: one of DISTORTIONS, in its unit, either way.

    `seed` is of the noise. Raises ParameterError for another kind.
    """
    check("kind", kind, kind in DISTORTIONS, f"one of {', '.join(DISTORTIONS)}")
    if not amount:
        return images
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + 255 * amount * noise).round().clamp(0, 255).to(torch.uint8)
    moves = torch.zeros(len(images), len(MOVES), device=images.device)
    moves[:, MOVES.index("right" if kind == "shift" else kind)] = 1 if amount > 0 else -1
    inputs = augment(images, moves, get_recipe("assignment", **{kind: abs(amount)}))
    return denormalize(inputs)


def robustness(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, kind: str, amounts: list[float]
) -> list[float]:
    """Accuracy (%) on uint8 images (N, 28, 28) with labels (N,), distorted by each amount."""
    changed = (distort(as_images(images), kind, amount) for amount in amounts)
    right = (infer(net, images).argmax(dim=1).cpu() == labels.cpu() for images in changed)
    return [100 * correct.float().mean().item() for correct in right]


def expected_calibration_error(
    labels: torch.Tensor, log_probabilities: torch.Tensor, bins: int = 10
) -> float:
    """How far confidence and accuracy are apart (points): Naeini, Cooper and Hauskrecht 2015.

    Of labels (N,) and log-probabilities (N, 10): the mean over `bins` of equal width, each weighted
    by its images.
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    gap = (predictions == labels.cpu()).float() - confidence
    place = (bins * confidence).long().clamp(max=bins - 1)
    sums = torch.zeros(bins).index_add_(0, place, gap)
    return 100 * (sums.abs().sum() / len(labels)).item()
