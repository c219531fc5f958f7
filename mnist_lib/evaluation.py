"""Evaluates nets: log-probabilities and test score; a net's crop, scale, device and size."""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

from .augment import MEAN, STD, Rescaled, Views, normalize
from .base.arrays import as_images, type_and_shape
from .base.errors import MnistLibError, ParameterError, is_whole, shorten
from .data import MNIST, check_data

TEST_BATCH = 125  # images; larger batches are hardly faster and take memory
BOUNDED = "the net's scores all lie in 0..1 and do not add up to 1, as after a sigmoid"


def infer(net: nn.Module, images: torch.Tensor, bounded: bool = False) -> torch.Tensor:
    """Log-probabilities (N, 10) of uint8 images (N, 28, 28), in evaluation mode, on net's device.

    The net's input is `normalize(images)`; see `Rescaled` for a net of another scale. If the net
    returns scores (logits), they go through log_softmax. Scores that all lie in 0..1, as after a
    sigmoid, are refused unless they are `bounded` by design.
    """
    output = scores(net, images)
    logits = are_logits(output)
    if logits and not bounded and are_bounded(output):
        raise ParameterError(f"{BOUNDED}: return the scores before it, or pass bounded=True")
    return F.log_softmax(output, dim=1) if logits else output


def evaluate(net: nn.Module, data: MNIST, bounded: bool = False) -> tuple[float, int]:
    """`infer` on the test images: mean negative log-likelihood (nats), and how many are right."""
    check_data(data)
    output = infer(net, data.test_images, bounded)
    labels = data.test_labels.to(output.device)
    loss = F.nll_loss(output, labels, reduction="sum").item() / len(labels)
    return loss, (output.argmax(dim=1) == labels).sum().item()


@torch.no_grad()
def scores(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the net itself returns for uint8 images (N, 28, 28), in evaluation mode: (N, 10)."""
    images, device = as_images(images), device_of(net)
    with in_mode(net, training=False):
        parts = images.split(TEST_BATCH)
        return torch.cat([checked_output(net, normalize(part.to(device))) for part in parts])


@contextlib.contextmanager
def in_mode(net: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode in the block; then restores module modes and random state."""
    device, modes = device_of(net), [(module, module.training) for module in net.modules()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            net.train(training)
            yield
    finally:
        torch.clear_autocast_cache()  # of weights that may change before the next block
        for module, mode in modes:
            module.training = mode


def checked_output(net: nn.Module, inputs: torch.Tensor, when: str = "") -> torch.Tensor:
    """The net's output, checked to be (N, 10); half precision becomes single."""
    output = call_net(net, inputs, tuple(inputs.shape))
    real = isinstance(output, torch.Tensor) and output.is_floating_point()
    if not real or output.shape != (len(inputs), 10):
        expected = f"a tensor ({len(inputs)}, 10), ten scores per image, and nothing else"
        given = f"{type_and_shape(output)}: see the end of its forward"
        raise ParameterError(f"the net must {when}return {expected}, got {given}")
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def are_logits(output: torch.Tensor) -> bool:
    """Whether scores (N, 10) are not yet log-probabilities.

    Raises ParameterError for nan, probabilities, or a softmax over the images.
    """
    if not len(output):
        return False
    if output.isnan().any():
        raise ParameterError("the net returns nan: its weights, or its forward, are broken")
    logs, shares = _sums_to_one(output, 1)
    together = output[:TEST_BATCH]  # images that the net saw in one batch
    if len(together) > 1 and not (logs or shares) and any(_sums_to_one(together, 0)):
        raise ParameterError("the net's softmax is over the images, dim=0: take it over dim=1")
    if shares:
        advice = "return log_softmax(x, dim=1) or the scores themselves"
        raise ParameterError(f"the net returns probabilities: {advice}")
    return not logs


def are_bounded(output: torch.Tensor) -> bool:
    """Whether scores (N, 10) all lie in 0..1, as after a sigmoid; all zeros do not count."""
    return bool((output >= 0).all() and (output <= 1).all() and output.any())


def _sums_to_one(output: torch.Tensor, dim: int) -> tuple[bool, bool]:
    """Whether scores are, along `dim`, log-probabilities or probabilities, up to rounding."""
    values = output.float()
    logs = not (values.logsumexp(dim).abs() > 0.02).any()
    return logs, bool((values >= 0).all() and ((values.sum(dim) - 1).abs() < 0.02).all())


def call_net(net: nn.Module, inputs: torch.Tensor, shape: tuple[int, ...]):
    """`net(inputs)`. Raises ParameterError, naming the `shape`, if the net cannot take them."""
    try:
        return net(inputs)
    except MnistLibError:
        raise
    except Exception as error:  # a net is foreign code: it can raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ParameterError(f"net cannot take images of shape {shape}: {reason}") from error


def check_net(net) -> None:
    """Raise ParameterError unless `net` is a module with parameters."""
    if isinstance(net, type) and issubclass(net, nn.Module):
        raise ParameterError(f"net is the class {net.__name__}: make one, {net.__name__}()")
    if not isinstance(net, nn.Module) or not any(True for _ in net.parameters()):
        raise ParameterError(f"net must be a torch.nn.Module with parameters, got {shorten(net)}")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in net.parameters()):
        raise ParameterError("net has lazy layers without a shape yet: call it on a batch first")


def unwrapped(net: nn.Module) -> nn.Module:
    """The net inside Views, Rescaled, DataParallel and torch.compile."""
    wrappers = (Views, Rescaled, nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(net, wrappers) or hasattr(net, "_orig_mod"):
        net = net.module if isinstance(net, wrappers) else net._orig_mod
    return net


def crop_of(net: nn.Module, default: int = 28) -> int:
    """The side, in pixels, of the middle of an image that `net` looks at, if it says so."""
    crop = getattr(unwrapped(net), "crop", default)
    return crop if is_whole(crop) else default  # a net may have a method of that name


def scale_of(net: nn.Module) -> tuple[float, float]:
    """The mean and sd of the inputs that the net inside its wrappers takes: see `Rescaled`."""
    found = (part for part in net.modules() if isinstance(part, Rescaled))
    return next(((part.mean, part.std) for part in found), (MEAN, STD))


def device_of(net: nn.Module) -> torch.device:
    """The device of the net's first parameter."""
    check_net(net)
    return next(net.parameters()).device


def count_parameters(net: nn.Module) -> int:
    """The number of parameters of `net`, frozen ones included, each tensor counted once."""
    check_net(net)
    return sum(p.numel() for p in net.parameters())
