"""Verdicts, by hand, and on nets other than ours."""

import dataclasses

import pytest
import torch.nn as nn

from mnist_lib import Net, logged_run, verdict

from .test_history import make


def holds(net, history):
    return [claim.holds for claim in verdict(net, history).claims]


def test_the_logged_run_judged_by_itself():
    assert holds(Net(), logged_run()) == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ([9943] * 5, [True, False, False, True, True]),  # one digit short of the target
        ([9944] * 5, [True, True, True, True, True]),
        ([9944, 9937, 9937, 9937, 9937], [True, True, False, False, True]),
        ([9960, 9900, 9900, 9900, 9900, 9944], [True, True, True, True, False]),
        ([9000], [True, False, False, False]),  # too short for a mean of five
        ([9000, 9944, 9950, 9944], [True, True, True, True]),
    ],
)
def test_claims_by_hand(correct, expected):
    judged = verdict(Net(), make(*correct))
    assert [claim.holds for claim in judged.claims] == expected
    assert judged.holds == all(expected)


def test_shares_are_compared_exactly_on_another_test_size():
    assert holds(Net(), make(994, images=1000))[1] is False  # 99.4%
    assert holds(Net(), make(995, images=1000))[1] is True


def test_another_net_is_graded_by_its_parameters():
    just_over = nn.Linear(100, 199)  # 20,099
    assert verdict(just_over, make(9950)).claims[0].holds is False
    assert verdict(just_over, make(9950)).claims[0].measured == "20,099"
    for parameter in just_over.parameters():
        parameter.requires_grad = False
    assert verdict(just_over, make(9950)).claims[0].measured == "20,099", "frozen ones count"


def test_text_names_epoch_numbers_and_the_flattery():
    text = str(verdict(Net(), make(9950, 9944)))
    assert text.startswith("Verdict on MNIST\n")
    assert "epoch 1; best 9950/10000 at 1" in text
    assert "flatters" in text
    assert verdict(Net(), make(9950)).summary() == "Verdict on MNIST: 4 of 4 claims hold"
    assert "not: 99.44% reached, first epoch" in verdict(Net(), make(9940)).summary()


def test_sample_and_part_are_marked():
    sample = dataclasses.replace(
        make(960, images=1000), source="sample", record={"train_images": 4000}
    )
    assert verdict(Net(), sample).title == "Verdict on the SAMPLE (4,000 to train, 1,000 to test)"
    part = dataclasses.replace(make(9600), record={"train_images": 2000})
    assert verdict(Net(), part).title == "Verdict on MNIST, trained on 2,000 images only"
    read_back = verdict(Net(), make(960, images=1000)).title
    assert read_back == "Verdict on 1,000 test images, not MNIST's 10,000"
