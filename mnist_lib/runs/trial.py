"""Before a run: do its arguments fit together, and does the net train and answer as expected?"""

import copy
import dataclasses
import sys
from collections.abc import Callable

import torch
import torch.nn as nn

from .. import evaluation
from ..augment import Views, normalize
from ..base.errors import ParameterError, RunError, as_seed, check, check_flags
from ..base.machine import environment
from ..data import MNIST, check_data
from ..history import Epoch
from ..net import middle
from ..recipe import Recipe, check_recipe


def check_arguments(
    net: nn.Module, data: MNIST, recipe: Recipe, seed: int | None, resume: bool
) -> tuple[Recipe, int]:
    """Check the arguments of `train`; returns the recipe for this data's source, and the seed."""
    evaluation.check_net(net)
    check_data(data)
    check_recipe(recipe)
    check_flags(resume=resume)
    data.check_batch_size(recipe.batch_size)
    views = 4 if any(isinstance(part, Views) for part in net.modules()) else 1
    for name, own in (("crop", evaluation.crop_of(net, recipe.crop)), ("views", views)):
        planned = getattr(recipe, name)
        expected = f"{planned}, as recipe {recipe.name!r} has it: see make_net or change that"
        check(f"the net's {name}", own, own == planned, expected)
    return recipe.for_source(data.source), as_seed(seed)


def make_record(net: nn.Module, data: MNIST, recipe: Recipe, seed: int) -> dict:
    """What a run is and where it is made: the `record` of its History."""
    run = {"recipe": dataclasses.asdict(recipe), "seed": seed}
    sizes = {"parameters": evaluation.count_parameters(net), "train_images": len(data.train_images)}
    return run | environment(evaluation.device_of(net)) | sizes | {"data": data.digest}


def try_net(net: nn.Module, data: MNIST, recipe: Recipe) -> Callable:
    """The function that training calls: the net, followed by log_softmax if it returns scores.

    Tries the net on a training batch first, and raises ParameterError if it cannot learn from it.
    Warns on stderr of outputs that can be trained on but are probably a mistake.
    """
    tried = data.test_images[: evaluation.TEST_BATCH]
    answers = evaluation.scores(net, torch.cat([tried, tried]))
    logits = evaluation.are_logits(answers)
    if logits and evaluation.are_bounded(answers):
        print(f"{evaluation.BOUNDED}: they are taken for scores", file=sys.stderr)
    first, second = answers.split(len(tried))
    if ((first - second).abs() > 1e-3 * (1 + first.abs())).any():
        random = "the net's answer is random in evaluation, too, and so are its results"
        advice = "for dropout, use nn.Dropout, or F.dropout with training=self.training"
        print(f"{random}: {advice}", file=sys.stderr)
    size, device = recipe.batch_size, evaluation.device_of(net)
    inputs = normalize(data.train_images[: min(size, evaluation.TEST_BATCH)].to(device))
    inputs = middle(inputs, evaluation.crop_of(net))  # as in training
    counts = (recipe.epoch_images(e, len(data.train_images)) for e in range(1, recipe.epochs + 1))
    single = any((count - 1) % size == 0 for count in counts)  # a last batch of one image
    before = copy.deepcopy(net.state_dict())
    try:
        with evaluation.in_mode(net, training=True):
            output = evaluation.checked_output(net, inputs, "in training ")
            if single:
                evaluation.checked_output(net, inputs[:1], "in training ")
    except ValueError as error:
        if "more than 1 value per channel" not in f"{error} {error.__cause__}":  # of a batch norm
            raise
        few = f"with batch_size {size} a batch is one image, too few for this net's batch norm"
        raise ParameterError(f"{few}: choose another batch_size") from None
    finally:
        net.load_state_dict(before)
    if not output.requires_grad:
        advice = "keep requires_grad on, and no_grad and detach out of its forward"
        raise ParameterError(f"the net's output depends on no parameter that is trained: {advice}")
    if evaluation.are_logits(output.detach()) != logits:
        kinds = "log-probabilities in one of training and evaluation, and scores in the other"
        raise ParameterError(f"the net returns {kinds}: return the same in both")
    evaluation.scores(net, tried[:2])  # what a net keeps of its last pass can then be copied
    return (lambda x: net(x).log_softmax(dim=1)) if logits else net


def check_same_net(net: nn.Module, data: MNIST, epochs: list[Epoch]) -> None:
    """Raise RunError unless a resumed net answers as it did after the last of `epochs`."""
    if not epochs:
        return
    last = epochs[-1]
    # Weights can fit another net, such as one with another activation.
    _, correct = evaluation.evaluate(net, data, bounded=True)
    # Rounding on another machine may change a few answers.
    if abs(correct - last.correct) > 2 + len(data.test_images) / 200:
        score = f"gets {correct} of {last.images} images right, not {last.correct}"
        other = f"the folder holds the run of another net: with its weights this net {score}"
        raise RunError(f"{other}; name another folder, or train anew with resume=False")
