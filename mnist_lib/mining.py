"""Hard example mining: after the first epoch, training on the images of highest loss only."""

import torch

from .recipe import Recipe


class HardExamples:
    """The last known loss of each of `count` training images, by which epochs choose theirs.

    The loss, of labels that are not smoothed, is the one of the image's last step in training, so
    that it costs no pass of its own (online batch selection, Loshchilov and Hutter 2015). An image
    left out keeps its loss, and comes back when those of the others have fallen below it. Those
    that the first epoch leaves out (`unseen`) are scored before the second by the averaged net, as
    they are: easier than what is turned and shifted, so that fewer of them are chosen.

    Where the recipe's `hardest` is 1, nothing is kept.
    """

    def __init__(self, count: int, recipe: Recipe, device: torch.device):
        self.count, self.recipe = count, recipe
        kept = count if recipe.hardest < 1 else 0
        self.losses = torch.full((kept,), torch.inf, device=device)

    def unseen(self, epoch: int) -> torch.Tensor:
        """The numbers of the images whose losses `epoch` asks for and that are not known yet."""
        return self.losses[: 0 if epoch == 1 else None].isinf().nonzero().squeeze(1)

    @torch.no_grad()
    def update(self, numbers: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in the log-probabilities (N, 10) and labels (N,) of the images `numbers` (N,)."""
        if len(self.losses):
            self.losses[numbers] = -output.gather(1, labels.unsqueeze(1)).squeeze(1)

    def order(self, epoch: int, random: torch.Generator) -> torch.Tensor:
        """The numbers of the images that `epoch`, counted from 1, trains on, shuffled; CPU."""
        number = self.recipe.epoch_images(epoch, self.count)
        if epoch == 1 or not len(self.losses):
            return torch.randperm(self.count, generator=random)[:number]
        hardest = self.losses.topk(number).indices.cpu()
        return hardest[torch.randperm(number, generator=random)]

    def state_dict(self) -> dict:
        """For a checkpoint, as torch's own."""
        return {"losses": self.losses}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.losses.copy_(state["losses"])
