"""What is shown of a net, compared with what can be known about it."""

import inside
import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn as nn

from mnist_lib import (
    FastNet,
    Net,
    ParameterError,
    get_recipe,
    layer_table,
    normalize,
    pretrained,
    recorded_studies,
)
from mnist_lib.augment import Rescaled, Views
from mnist_lib.net import set_seed


@pytest.fixture(scope="module")
def net():
    return pretrained("steady")


def test_feature_maps_have_the_layers_shapes_inside_views_too(net, sample):
    views, images = Views(net, get_recipe("views")), sample.test_images[:2]
    maps, seen = (inside.feature_maps(n, images[0]) for n in (net, views))
    shapes = {layer.name: layer.output_shape for layer in layer_table(net)}
    assert {name: tuple(layer.shape) for name, layer in maps.items()} == shapes
    assert all(torch.equal(seen[name], layer) for name, layer in maps.items())
    fields = (inside.effective_receptive_field(n, "conv2", images) for n in (views, net))
    assert torch.equal(*fields)
    with pytest.raises(ParameterError, match="one of conv1"):
        inside.effective_receptive_field(views, "conv9", images)


def test_a_net_of_another_scale_sees_its_own(sample):
    net, images = Net().eval(), sample.test_images[:2]
    expected = net.conv1(normalize(images, 0.5, 0.25))[0]
    rescaled = Rescaled(net, 0.5, 0.25)
    assert torch.equal(inside.feature_maps(rescaled, images[0])["conv1"], expected)
    field = inside.effective_receptive_field(rescaled, "conv7", images)
    assert not torch.equal(field, inside.effective_receptive_field(net, "conv7", images))


@pytest.mark.parametrize("make", [Net, lambda: FastNet(24)])
def test_what_moves_an_output_is_its_receptive_field(make):
    set_seed(0)
    net, images = make(), torch.randint(256, (20, 28, 28), dtype=torch.uint8)
    for layer in layer_table(net):
        if layer.kind != "Conv2d":
            continue
        field = inside.effective_receptive_field(net, layer.name, images)
        assert field.sum() == pytest.approx(1, abs=1e-4)
        used = torch.nonzero(field)
        sides = (used.amax(dim=0) - used.amin(dim=0) + 1).tolist()
        if layer.receptive_field <= 20:
            assert sides == [layer.receptive_field] * 2
        else:  # the image's rim cuts it, on one side more than on the other
            assert 20 < max(sides) <= min(layer.receptive_field, 28)


def test_saliency_is_the_gradient(sample):
    set_seed(0)
    net, image = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), sample.test_images[:1]
    output = net((image[:, None].float() / 255 - 0.1307) / 0.3081).log_softmax(dim=1)
    best = output.argmax()
    slope = net[1].weight[best] - (output.exp() @ net[1].weight)[0]  # as the net is linear
    expected = (slope.abs() / slope.abs().max()).detach().view(28, 28)
    assert torch.allclose(inside.saliency(net, image)[0], expected, atol=1e-5)


def test_distortions_do_what_they_say(sample):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 4:8, 13:15] = 255  # a mark at the top
    assert inside.distort(image, "shift", 3).nonzero()[:, 2].float().mean() == 16.5
    assert inside.distort(image, "shift", -3).nonzero()[:, 2].float().mean() == 10.5
    assert inside.distort(image, "rotation", 90).nonzero()[:, 2].float().mean() > 20  # clockwise
    assert inside.distort(image, "rotation", -90).nonzero()[:, 2].float().mean() < 8
    far = [inside.distort(image, "scale", by).nonzero()[:, 1].float().mean() for by in (-0.5, 0.5)]
    assert far[1] < 5 < far[0]  # larger lies farther from the middle
    noisy = inside.distort(torch.full((50, 28, 28), 128, dtype=torch.uint8), "noise", 0.1)
    assert noisy.float().std() / 255 == pytest.approx(0.1, rel=0.05)
    assert all(torch.equal(inside.distort(image, kind, 0), image) for kind in inside.DISTORTIONS)
    with pytest.raises(ParameterError, match="one of rotation"):
        inside.distort(image, "blur", 1)


def test_robustness_falls_with_the_distortion(net, sample):
    digits = sample.test_images[:200], sample.test_labels[:200]
    upright, turned, head = inside.robustness(net, *digits, "rotation", [0, 45, 180])
    assert inside.robustness(net, *(part.numpy() for part in digits), "scale", [0]) == [upright]
    assert upright < 6
    assert upright < turned < head < 200


def test_robustness_is_a_share_with_its_interval():
    kinds = {kind: {"a": [20, 0], "b": [10, 9]} for kind in inside.DISTORTIONS}
    figure = inside.plot_robustness(kinds, {kind: [0, 1] for kind in kinds}, 100)
    ax = figure.axes[1]
    (first, _, (bars,)), _ = ax.containers
    assert first.get_ydata().tolist() == pytest.approx([20, 0.5]), "half a mistake for none"
    ends = [bar[:, 1].tolist() for bar in bars.get_segments()]
    assert ends == [pytest.approx([12.67, 29.18], abs=0.01), pytest.approx([0, 3.62], abs=0.01)]
    assert ax.get_title() == "shift: b misses the fewest in all"
    plt.close(figure)


def test_fields_say_what_is_in_sight(net, sample, ax):
    fields = {"conv6": inside.effective_receptive_field(net, "conv6", sample.test_images[:20])}
    inside.plot_fields(fields, {"conv6": 32}, ax)
    image, seen = ax.patches
    assert (image.get_width(), seen.get_width(), seen.get_xy()) == (28, 24, (2, 2))
    assert ax.texts[0].get_text().startswith("conv6: 32 x 32\nin sight: 24 x 24\n90% in 6")


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    output = torch.tensor([[0.8, *[0.2 / 9] * 9]] * 10 + [[0.6, *[0.4 / 9] * 9]] * 10).log()
    labels = torch.tensor([0] * 6 + [1] * 4 + [0] * 8 + [1] * 2)  # 60% and 80% right
    assert inside.expected_calibration_error(labels, output) == pytest.approx(20, abs=1e-3)
    labels = labels.roll(10)  # now it is as often right as it is sure
    assert inside.expected_calibration_error(labels, output) == pytest.approx(0, abs=1e-3)


def test_hooks_are_gone_and_the_mode_is_as_before(sample):
    net = FastNet().train()
    inside.feature_maps(net, sample.test_images[0])
    inside.effective_receptive_field(net, "conv2", sample.test_images[:2])
    inside.saliency(net, sample.test_images[:2])
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_recorded_mistakes_are_those_of_the_recorded_seeds():
    for recipe in ("steady", "fast"):
        mistakes, runs = inside.recorded_mistakes()[recipe], recorded_studies()[recipe]
        wrong = {run.record["seed"]: 10_000 - run.final.correct for run in runs}
        assert {seed: len(found) for seed, found in mistakes.items()} == wrong
        counts = inside.shared_mistakes(recipe)
        assert sum(counts.values()) == sum(wrong.values())
        assert list(counts.values()) == sorted(counts.values(), reverse=True)
    with pytest.raises(ParameterError, match="one of"):
        inside.shared_mistakes("quick")


def test_label_errors_are_doubted_by_their_votes():
    errors = inside.label_errors()
    assert len({error["index"] for error in errors}) == 15
    assert all(error["votes"][0] < 3 and sum(error["votes"]) == 5 for error in errors)


def test_the_table_of_own_digits_has_both_ways():
    rows = inside.own_digits_table().rows
    assert len(rows) == 8
    others = rows[:3] + rows[4:]  # than MNIST's own images, for which the raw way is right
    assert all(float(r["prepare, % right"]) > 90 > float(r["raw, % right"]) for r in others)
