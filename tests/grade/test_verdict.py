"""Verdicts and summaries, by hand, and on nets other than ours."""

import dataclasses

import pytest
import torch.nn as nn

from mnist_lib import (
    Net,
    ParameterError,
    check_run,
    describe,
    evaluate,
    get_recipe,
    logged_run,
    pretrained,
    recorded_studies,
    summary,
)
from mnist_lib.grade.luck import luck_table
from mnist_lib.grade.verdict import findings, verdict
from tests.test_history import make


def holds(net, history):
    return [claim.holds for claim in verdict(net, history).claims]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (logged_run(), [True, True, False, True, True]),
        (make(*[9943] * 5), [True, False, False, True, True]),  # one digit short of the target
        (make(*[9944] * 5), [True, True, True, True, True]),
        (make(9944, 9937, 9937, 9937, 9937), [True, True, False, False, True]),
        (make(9960, 9900, 9900, 9900, 9900, 9944), [True, True, True, True, False]),
        (make(9000), [True, False, False, False]),  # too short for a mean of five
        (make(9000, 9944, 9950, 9944), [True, True, True, True]),
    ],
)
def test_claims_by_hand(history, expected):
    assert holds(Net(), history) == expected
    assert verdict(Net(), history).holds == all(expected)
    assert (history.touched, history.ends_at_target) == tuple(expected[1:3])
    assert not make(994, images=1000).touched, "99.4% is not enough on fewer images either"
    assert make(995, images=1000).touched


@pytest.mark.parametrize(
    "history",
    [
        make(999, images=1000, source="sample"),
        make(*[4999] * 5, images=5000, source="validation"),
        make(9999, source="fashion"),
        make(999, images=1000),
    ],
)
def test_what_only_mnist_can_tell_is_not_answered_on_other_data(history):
    for net, fewer in ((Net(), True), (nn.Linear(100, 199), False)):
        judged = verdict(net, history)
        assert holds(net, history) == [fewer, *[None] * (4 if len(history) == 5 else 3)]
        assert judged.holds is fewer
        assert f": {fewer:d} of 1" in judged.summary()
        assert "99.44%" not in judged.summary(), "it is not among those that do not hold"
        rows = str(judged).splitlines()
        assert sum(row.endswith("not judged") for row in rows) == len(judged.claims) - 1
        assert "recorded" not in rows[2], "a column without a seed"
        for last in (rows[-1], judged.summary()):
            assert "MNIST_DATA" in last


@pytest.mark.parametrize("frozen", [False, True])
def test_another_net_is_graded_by_all_of_its_parameters(frozen):
    claim = verdict(nn.Linear(100, 199).requires_grad_(not frozen), make(9950)).claims[0]
    assert (claim.holds, claim.measured) == (False, "20,099")


def test_text_names_epoch_numbers_and_the_flattery():
    text = str(verdict(Net(), make(9950, 9944)))
    assert text.startswith("Verdict on MNIST\n")
    assert (best := "epoch 1; best 9950/10000 at 1") in text
    assert "flatters" in text
    shown = verdict(Net(), make(9950, 9944))._repr_html_()
    assert shown.startswith("<p>Verdict on MNIST</p><div")
    assert f'<td style="text-align: left">{best}</td>' in shown
    assert verdict(Net(), make(9950)).summary() == "Verdict on MNIST: claims confirmed: 4 of 4"
    assert "not: 99.44% at some epoch" in verdict(Net(), make(9940)).summary()


@pytest.mark.parametrize(
    ("history", "title"),
    [
        (make(9900, train_images=60_000), "MNIST"),
        (make(9600, train_images=2000), "MNIST, trained on 2,000 images only"),
        (make(9600, source="fashion"), "fashion (10,000 to test)"),
        (make(960, images=1000), "1,000 test images, not MNIST's 10,000"),
        (make(960, images=1000, source="sample"), "the SAMPLE of MNIST (1,000 to test)"),
        (
            make(9, images=10, source="sample", train_images=40),
            "the SAMPLE of MNIST (40 to train, 10 to test)",
        ),
        (
            make(4960, images=5000, source="validation", train_images=55_000),
            "a VALIDATION split (55,000 to train, 5,000 to test)",
        ),
    ],
)
def test_sample_fold_and_part_are_named(history, title):
    assert describe(history) == title


def test_recorded_seeds_stand_beside_the_claims_of_their_recipe_alone():
    recipe = dataclasses.asdict(get_recipe("steady"))
    run = make(*[9950] * 7, recipe=recipe)
    seeds = recorded_studies()["steady, fresh seeds"]  # these had no part in the choice
    recorded = [claim.recorded for claim in verdict(Net(), run).claims]
    reached = f"{sum(run.ends_at_target for run in seeds)} of 20 (68 to 99%)"
    assert [recorded[0], recorded[2]] == ["20 of 20 (83 to 100%)", reached]
    assert f"Of {len(seeds)} recorded seeds" in findings(run)
    changed = make(*[9950] * 7, recipe=recipe | {"epochs": 8})
    other_net = make(*[9950] * 7, recipe=recipe, parameters=13_323)
    assert "recorded seeds" not in findings(other_net)
    for other in (changed, make(9950), make(995, images=1000, recipe=recipe)):
        assert {claim.recorded for claim in verdict(Net(), other).claims} == {""}


def test_summary_by_hand():
    lines = summary([make(9900, 9940), make(9920, 9930), make(9910, 9944)]).splitlines()
    assert "3 seeds, 1 with at" in lines[0]
    assert [line.split()[-3:] for line in lines[1:]] == [
        ["99.380", "±", "0.072"],
        ["99.240", "±", "0.036"],
        ["99.380", "±", "0.072"],
        ["50.000", "±", "0.000"],
    ]


def test_the_net_at_hand_is_tested_beside_the_log(sample):
    """A log edited by one line does not pass with honest weights."""
    net, images = pretrained("fast"), len(sample.test_images)
    right = evaluate(net, sample)[1]
    for told, holds in ((right, True), (right - 1, images > 1999), (right - 100, False)):
        claim = verdict(net, make(told, images=images, source="sample"), sample).claims[-1]
        assert (claim.text, claim.holds) == ("the net scores what its log says", holds)
    assert claim.measured == f"{right}/{images}, not {right - 100}"
    with pytest.raises(ParameterError, match="data must have the history's 10,000 test"):
        verdict(net, make(9900), sample)
    with pytest.raises(ParameterError, match="data must be an MNIST"):
        verdict(net, make(9900), sample.test_images)
    assert verdict(13_322, make(9950)).holds
    with pytest.raises(ParameterError, match="net must be"):
        verdict(13_322, make(right, images=images, source="sample"), sample)


def test_a_test_set_as_large_as_the_training_set_is_told():
    judged = verdict(Net(), make(59_990, images=60_000))
    assert judged.title == "Verdict on 60,000 test images, not MNIST's 10,000"
    assert [claim.holds for claim in judged.claims[1:]] == [None] * 3


def test_luck_by_hand():
    """Noise from epoch to epoch and from seed to seed are told apart; the chances follow."""
    recipe = dataclasses.asdict(get_recipe("steady"))

    def runs(seeds, noise):
        """Eight runs of seven epochs. The last three are a plateau."""
        waves = [(1, -1, 0), (-1, 0, 1), (0, 1, -1), (0, 0, 0)] * 2
        shifts = [seeds * (1 if n < 4 else -1) for n in range(8)]
        plateaus = [
            [9944 + s + noise * w for w in wave] for s, wave in zip(shifts, waves, strict=True)
        ]
        return [make(*[9800] * 4, *plateau, recipe=recipe) for plateau in plateaus]

    studies = {"noise": runs(0, 30), "seeds": runs(20, 0), "calm": runs(0, 0)}
    noise, seeds, calm = luck_table(studies).rows
    assert (noise["late epochs, %"], noise["sd over seeds"]) == ("99.44", "0.000")
    assert noise["sd over epochs"] == f"{0.3 * (12 / 14) ** 0.5:.3f}"
    assert (seeds["sd over epochs"], seeds["sd over seeds"]) == (
        "0.000",
        f"{0.2 * (8 / 7) ** 0.5:.3f}",
    )
    assert noise["chance of 99.44% at some epoch"] > seeds["chance of 99.44% at some epoch"]
    assert seeds["at the last"].startswith("0.50 (")
    assert seeds["chance of 99.44% at some epoch"] == seeds["at the last"]
    assert calm["at the last"] == ">0.99 (>0.99 to >0.99)"
    assert calm["held out, %"] == "99.44"
    recipe |= {"crop": 20}  # another recipe, whatever its name
    (other,) = luck_table({"other": runs(0, 0)}).rows
    assert other["held out, %"] == ""
    recipe = dataclasses.asdict(get_recipe("assignment"))
    low = [make(9700, 9800 + n, recipe=recipe) for n in (0, 5)]  # stopped after two epochs
    assert luck_table({"stopped": low}).rows[0]["at the last"].startswith("0.00")


def test_a_run_of_the_assignment_touches_the_target_one_time_in_four():
    (row,) = luck_table({"assignment": recorded_studies()["assignment"]}).rows
    for name, chance in (("chance of 99.44% at some epoch", 0.25), ("at the last", 0.06)):
        assert float(row[name][:4]) == pytest.approx(chance, abs=0.02), "as others computed it"


def test_findings_by_hand():
    smoothed = dataclasses.asdict(get_recipe("fast"))
    said = findings(make(9900, 9910, 9920, 9950, 9930, 9940, 9920, recipe=smoothed))
    for figure in ("4 of 7: 9950/10000", "9920/10000 (99.20%)", "0.20 points", "smoothed"):
        assert figure in said


def test_a_run_is_checked_against_the_notebooks():
    (run,) = recorded_studies()["notebook"]
    assert check_run(run).count("agrees: True") == 3
    last = dataclasses.replace(run.final, correct=run.final.correct + 1)
    other = dataclasses.replace(run, epochs=(*run.epochs[:-1], last))
    assert "last epoch" in check_run(other)
    assert check_run(other).count("agrees: False") == 2, "to the digit on the same machine"
    elsewhere = dataclasses.replace(other, record=run.record | {"machine": "other"})
    assert check_run(elsewhere) == check_run(run)
    resumed = run.record | {"resumed": [{"after_epoch": 2, "machine": "other"}]}
    assert check_run(dataclasses.replace(other, record=resumed)) == check_run(run)
    another = dataclasses.replace(run, record=run.record | {"seed": 1})
    assert check_run(another).endswith(" ".join(str(epoch.correct) for epoch in run))


def test_what_is_no_history_or_no_runs_is_refused():
    for call in (findings, check_run, describe, lambda given: verdict(Net(), given)):
        for given in (None, "runs/x", [logged_run()]):
            with pytest.raises(ParameterError, match="history must be a History"):
                call(given)
    for call in (summary, lambda given: luck_table({"a": given})):
        for given in ([], None, logged_run(), ["x"]):
            with pytest.raises(ParameterError, match="must be a list of at least one History"):
                call(given)
    with pytest.raises(ParameterError, match="studies must be a dict of names"):
        luck_table([logged_run()] * 2)
    mixed = [make(9950, 9950), make(9950, 9950, source="validation")]
    for given in (mixed, [logged_run()], [make(9950)] * 2, [make(9950, 9940), logged_run()]):
        with pytest.raises(ParameterError, match="two seeds of one recipe, of two epochs, or more"):
            luck_table({"a": given})
    with pytest.raises(ParameterError, match="has 13,322 parameters, but the history's had 15,066"):
        verdict(Net(), make(9900, parameters=15_066))
