"""Before a run: do its arguments fit together, and does the net answer as it must?"""

import copy
from collections.abc import Callable

import torch
import torch.nn as nn

from .augment import normalize
from .data import MNIST, check_data
from .errors import ParameterError, RunError, as_seed, check_flags
from .evaluation import (
    TEST_BATCH,
    answer,
    are_logits,
    check_net,
    crop_of,
    device_of,
    evaluate,
    log_probabilities,
)
from .history import Epoch
from .net import middle
from .recipe import Recipe, check_recipe


def check_arguments(
    net: nn.Module, data: MNIST, recipe: Recipe, seed: int | None, resume: bool
) -> tuple[Recipe, int]:
    """The recipe for this data's source and the seed, if these arguments of `train` fit together.

    Raises ParameterError if they do not.
    """
    check_net(net)
    check_data(data)
    check_recipe(recipe)
    check_flags(resume=resume)
    data.check_batch_size(recipe.batch_size)
    crop = crop_of(net, recipe.crop)
    if crop != recipe.crop:
        raise ParameterError(
            f"net looks at the middle {crop} pixels of the images, recipe {recipe.name!r} at "
            f"{recipe.crop}: make the net with make_net(recipe)"
        )
    return recipe.for_source(data.source), as_seed(seed)


def try_net(net: nn.Module, data: MNIST, recipe: Recipe) -> Callable:
    """A function from net's input to log-probabilities, as `log_probabilities` returns.

    Tries the net on a batch, and on a batch of one image if an epoch ends with one. Raises
    ParameterError unless it answers in training as in evaluation, and learns.
    """
    forward = log_probabilities(net, data.test_images)
    inputs = normalize(data.train_images[: min(recipe.batch_size, TEST_BATCH)].to(device_of(net)))
    inputs = middle(inputs, crop_of(net))  # as training shows them
    counts = (recipe.epoch_images(e, len(data.train_images)) for e in (1, min(2, recipe.epochs)))
    single = any(count % recipe.batch_size == 1 % recipe.batch_size for count in counts)
    before = copy.deepcopy(net.state_dict())
    was_training = net.training
    try:
        with torch.random.fork_rng(devices=[]):
            net.train()
            output = answer(net, inputs, "in training ")
            if single:
                net(inputs[:1])
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's message, of a batch norm
            raise
        raise ParameterError(
            f"with batch_size {recipe.batch_size} a batch is one image, of which a batch norm of "
            "this net has no variance: choose another batch_size"
        ) from None
    finally:
        net.load_state_dict(before)
        net.train(was_training)
    if not output.requires_grad:
        raise ParameterError(
            "the net's output depends on no parameter that is trained: leave requires_grad on, and "
            "no_grad and detach out of its forward"
        )
    if are_logits(output.detach()) != (forward is not net):
        raise ParameterError(
            "the net returns log-probabilities in one of training and evaluation, and scores in "
            "the other: return the same in both"
        )
    return forward


def check_same_net(net: nn.Module, data: MNIST, epochs: list[Epoch]) -> None:
    """Raise RunError unless a resumed net answers as it did after the last of `epochs`.

    Weights of the same shapes may belong to another net, with another activation, say. Rounding on
    another machine may change a few answers.
    """
    if not epochs:
        return
    _, correct = evaluate(net, data)
    if abs(correct - epochs[-1].correct) > 2 + len(data.test_images) / 200:
        raise RunError(
            f"the run's folder holds the run of another net: with its weights this one has "
            f"{correct} of {epochs[-1].images} right, not {epochs[-1].correct}; name another "
            "folder, or train anew with resume=False"
        )
