"""The moving average of the weights against the same sum written out."""

import copy

import pytest
import torch
import torch.nn as nn

from mnist_lib.average import WeightAverage


def net_of(value):
    net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(value)
    return net


def test_it_is_the_weighted_sum():
    net = net_of(10.0)
    average = WeightAverage(net, decay=0.5)
    expected = 10.0
    for steps, value in enumerate([1.0, 2.0, -3.0, 4.0, 0.5, 7.0, 7.0, 7.0, 7.0], 1):
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.is_floating_point():
                    tensor.fill_(value)
        average.update()
        keep = min(0.5, (1 + steps) / (10 + steps))
        expected = keep * expected + (1 - keep) * value
        for name, tensor in average.net.state_dict().items():
            if tensor.is_floating_point():  # weights, and batch norm's running statistics
                assert tensor.flatten().tolist() == pytest.approx([expected] * tensor.numel()), name
    assert steps > 8, "the early steps' smaller share and the decay are both seen"


def test_the_net_itself_is_left_alone():
    net = net_of(1.0)
    before = copy.deepcopy(net.state_dict())
    average = WeightAverage(net, decay=0.9)
    average.update()
    assert average.net is not net
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in before)


def test_no_decay_is_the_net_itself():
    net = net_of(1.0)
    average = WeightAverage(net, decay=0)
    average.update()
    assert average.net is net
