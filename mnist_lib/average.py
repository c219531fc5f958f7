"""The moving average of a net's weights, which is tested and kept in the weights' place."""

import copy

import torch
import torch.nn as nn


class WeightAverage:
    """Exponential moving average of all weights and batch norm statistics of `net`.

    `decay` is the share of the old average that a step keeps, in its first steps less,
    (1 + steps) / (10 + steps), so that the random start is soon forgotten (the schedule of
    TensorFlow's ExponentialMovingAverage). With `decay` 0 the average is the net itself.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.net = copy.deepcopy(net) if decay else net
        own, new = self.net.state_dict().values(), net.state_dict().values()
        self._pairs = [(a, b) for a, b in zip(own, new, strict=True) if a.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the net's weights in, after a step of the optimiser."""
        if not self.decay:
            return
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for average, value in self._pairs:
            average.lerp_(value, weight)

    def state_dict(self) -> dict:
        """For a checkpoint, as torch's own: beside the net's, which hold all where decay is 0."""
        return {"steps": self.steps, "net": self.net.state_dict() if self.decay else {}}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.steps = state["steps"]
        if self.decay:
            self.net.load_state_dict(state["net"])
