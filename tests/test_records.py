"""Every figure in the README and the records' text, computed again from the records."""

import dataclasses
import itertools
import json
import re
import statistics
from pathlib import Path

import pytest

from mnist_lib import Recipe, get_recipe, load_history, logged_run
from mnist_lib.study import distance

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks" / "records"
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_WORDS = " ".join(README.split())  # whatever the lines
NOTEBOOK = json.loads((RECORDS.parent / "mnist_99_44.ipynb").read_text(encoding="utf-8"))
CELLS = {cell["id"]: " ".join("".join(cell["source"]).split()) for cell in NOTEBOOK["cells"]}
TEXT = (RECORDS / "README.md").read_text(encoding="utf-8")
RECIPES = ("logged", "fast", "steady", "sprint")
MACHINES = (".", "slower-machine", "fourth-machine", "fifth-machine")  # with a benchmark
CANDIDATES = {
    "SGD 0.005, momentum 0.9": "sgd-0.005",
    "SGD 0.01, momentum 0.9": "sgd-0.01",
    "SGD 0.02, momentum 0.9": "sgd-0.02",
    "**SGD 0.05, momentum 0.9**": "sgd-0.05",
    "SGD 0.1, momentum 0.9": "sgd-0.1",
    "SGD 0.1, no momentum": "sgd-0.1-m0",
    "Adam 0.001": "adam-0.001",
}


def recipe_of(run):
    return Recipe(**run.record["recipe"])


def candidate(folder):
    return [load_history(path) for path in sorted((RECORDS / "candidates" / folder).iterdir())]


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_table(name):
    runs = candidate(CANDIDATES[name])
    accuracy, loss = distance(runs, logged_run())
    means = [
        statistics.mean(run.epochs[0].accuracy for run in runs),
        statistics.mean(run.best.accuracy for run in runs),
        statistics.mean(run.final.accuracy for run in runs),
    ]
    row = [name, str(len(runs)), f"{accuracy:.3f}", f"{loss:.4f}", *(f"{x:.2f}" for x in means)]
    assert f"| {' | '.join(row)} |" in TEXT


def test_the_chosen_recipe_is_the_nearest_in_accuracy():
    nearest = min(CANDIDATES.values(), key=lambda name: distance(candidate(name), logged_run())[0])
    assert Recipe(**candidate(nearest)[0].record["recipe"]) == get_recipe("logged")
    assert Recipe(**load_history(RECORDS / "logged-seed0").record["recipe"]) == get_recipe("logged")


def test_the_later_seeds_are_no_nearer():
    for name in ("logged", "third-machine/logged"):
        runs = seeds_of(name)
        accuracy, loss = distance(runs, logged_run())
        each = [distance([run], logged_run())[0] for run in runs]
        told = f"{accuracy:.3f} points and {loss:.4f} nats ({min(each):.3f} to {max(each):.3f})"
        assert told in " ".join(TEXT.split())
    runs = [*seeds_of("logged"), *seeds_of("third-machine/logged")]
    assert f"By all 20 its distance is {distance(runs, logged_run())[0]:.3f}," in TEXT


def test_the_log_is_better_than_our_guess_at_it():
    log = logged_run()
    runs = [*seeds_of("logged"), *seeds_of("third-machine/logged")]
    assert sum(run.mean_of_last_five >= log.mean_of_last_five for run in runs) == 1
    told = f"one of our {len(runs)} runs on ten seeds has as good a mean of the last five epochs"
    assert f"{told} ({log.mean_of_last_five:.3f}%)" in README_WORDS
    assert min(run.final.test_loss for run in runs) > log.final.test_loss
    assert f"none ends at so low a loss ({log.final.test_loss:.4f})" in README_WORDS


def test_a_seed_on_two_machines_is_not_two_seeds():
    runs = [seeds_of("logged"), seeds_of("third-machine/logged")]
    means = [[run.mean_of_last_five for run in machine] for machine in runs]
    words = " ".join(TEXT.split())
    assert f"correlate between two machines ({statistics.correlation(*means):.2f})" in words
    touched = [[run.first_to_reach(9944) is not None for run in machine] for machine in runs]
    assert touched[0] == touched[1]
    assert "the same two seeds touch 99.44% on both" in words
    assert sum(touched[0]) == 2


def test_how_many_touched_the_target():
    machines = [
        folder_of(f"{folder}logged") for folder in ("", "third-machine/", "slower-machine/")
    ]
    candidates = [run for name in CANDIDATES.values() for run in candidate(name)]
    assert [len(runs) for runs in machines] == [10, 10, 1]
    assert (len(candidates), len(CANDIDATES)) == (14, 7)
    runs = [*itertools.chain(*machines), *candidates]
    ended = [run for run in runs if run.final.correct >= 9944]
    assert (len(ended), ended[0].record["seed"]) == (1, 0)
    assert ended[0].final == machines[2][0].final
    assert same_runs(ended, [load_history(RECORDS / "logged-seed0")])
    touched = sum(run.first_to_reach(9944) is not None for run in runs)
    assert (len(runs), touched) == (35, 8)
    assert "none of them at 99.44%, and two touch it at some epoch" in README_WORDS
    assert "Of all 35 recorded runs in that manner" in README_WORDS
    assert "eight touch it and one ends above it" in README_WORDS
    assert ended[0].final.correct > 9944
    same = [run for run in runs if recipe_of(run) == get_recipe("logged")]
    told = f"Of 35 recorded runs of this kind, {len(same)} of them of this recipe"
    assert told in CELLS["verdict-found"]
    told = "eight touched 99.44% at some epoch and one, this one, ended above it"
    assert told in CELLS["verdict-found"]


def folder_of(name):
    return [load_history(path) for path in sorted((RECORDS / name).iterdir())]


def seeds_of(name, count=10):
    """The runs of a folder that has to hold so many seeds, from 0 on, of the recipe as it is."""
    runs = folder_of(name)
    recipe = name.rpartition("/")[2]
    assert sorted(run.record["seed"] for run in runs) == list(range(count))
    for run in runs:
        made = recipe_of(run)
        # What is `steady` now was `fast` when most of its runs were made.
        assert made.name in {recipe, "fast" if recipe == "steady" else recipe}
        assert dataclasses.replace(made, name=recipe) == get_recipe(recipe)
        assert (run.source, run.images, run.record["train_images"]) == ("mnist", 10_000, 60_000)
    return runs


def seconds_of(runs):
    return statistics.mean(sum(epoch.seconds for epoch in run) for run in runs)


def finals_and_seconds(runs):
    finals = [run.final.accuracy for run in runs]
    mean, deviation = statistics.mean(finals), statistics.stdev(finals)
    return f"{mean:.3f} ± {deviation:.3f}% in {seconds_of(runs):.1f} s"


def same_runs(some, others):
    """Whether they are the same to the bit, times aside."""
    figures = [[[(e.correct, e.test_loss) for e in run] for run in runs] for runs in (some, others)]
    return figures[0] == figures[1]


def standard_error(values):
    return statistics.stdev(values) / len(values) ** 0.5


def mean_and_error(values, sign=""):
    return f"{statistics.mean(values):{sign}.3f} ± {standard_error(values):.3f}"


def gains(some, others):
    """What the runs end above others on the same seeds by, seed by seed, points."""
    base = {run.record["seed"]: run.final.accuracy for run in others}
    assert sorted(run.record["seed"] for run in some) == sorted(base)
    return [run.final.accuracy - base[run.record["seed"]] for run in some]


def mean_and_sd(values):
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, 10) for name in RECIPES),
        *((f"slower-machine/{name}", 10) for name in ("steady", "sprint")),
        *((f"fifth-machine/{name}", 10) for name in ("steady", "sprint")),
        ("slower-machine/logged", 1),
        ("fourth-machine/steady", 10),
    ],
)
def test_seeds_whose_seconds_count(name, count):
    assert all(run.record["environment"]["threads"] == 2 for run in seeds_of(name, count))


def test_seeds_whose_seconds_do_not_count():
    runs = seeds_of("third-machine/logged")
    assert all(run.record["environment"]["threads"] == 1 for run in runs)


def test_the_notebooks_statements_hold_for_every_run_of_logged():
    runs = [
        *seeds_of("logged"),
        *seeds_of("third-machine/logged"),
        *folder_of("slower-machine/logged"),
        *candidate("sgd-0.05"),
    ]
    best = min(run.best.accuracy for run in runs)
    assert best >= 99.2
    assert min(run.epochs[0].accuracy for run in runs) >= 95
    assert min(run.final.accuracy for run in runs) >= 98.5
    assert min(run.mean_of_last_five for run in runs) >= 99
    assert f"each of the {len(runs)} recorded runs of this recipe" in CELLS["checks"]
    assert f"{best:.2f}% at the least" in CELLS["checks"]


def test_machines_that_round_alike_make_the_same_runs():
    words = " ".join(TEXT.split())
    fourth = seeds_of("fourth-machine/steady")
    assert same_runs(seeds_of("steady"), fourth)
    assert f"same to the bit, in {seconds_of(fourth):.1f} s, and are not counted again" in words
    fifth = {name: seeds_of(f"fifth-machine/{name}") for name in ("steady", "sprint")}
    for name, runs in fifth.items():
        assert same_runs(seeds_of(f"slower-machine/{name}"), runs)
    told = "same to the bit, in {:.1f} s and {:.1f} s, as is its seed 0 of `logged`"
    assert told.format(*map(seconds_of, fifth.values())) in words


def times_as_long(machine):
    """What the benchmark there says of `logged` and what was `fast` then."""
    text = (RECORDS / machine / "benchmark.txt").read_text()
    (times,) = re.findall("^logged trains (.+) times as long as fast$", text, re.MULTILINE)
    return times


def test_what_the_benchmarks_say_of_recipes():
    words = " ".join(TEXT.split())
    assert f"`logged` trains {times_as_long('fourth-machine')} times as long as `steady`" in words
    times = times_as_long("fifth-machine")
    assert f"`logged` trains {times} times as long as `fast`" in words
    assert (
        f"on 9,600 of the images, `logged` trains {times} times as long as `fast`" in README_WORDS
    )
    best = [
        statistics.mean(run.best.epoch for run in seeds_of(name))
        for name in ("logged", "third-machine/logged")
    ]
    told = "after {:.1f} of 19 epochs by its ten seeds on one machine and after {:.1f} on another"
    assert told.format(*best) in README_WORDS
    until = [float(times) * epoch / 19 for epoch in best]
    assert "until then it trains {:.1f} and {:.1f} times as long".format(*until) in README_WORDS
    for name, told in (("logged", "`logged` {} s"), ("sprint", "`sprint` {}:")):
        text = (RECORDS / "benchmark.txt").read_text()
        (seconds,) = re.findall(rf"^recipe {name}, 2 threads: (.+) s for", text, re.MULTILINE)
        assert told.format(seconds) in words


def test_the_notebooks_run_is_a_recorded_one():
    """The same seed and threads, on a machine that rounds alike: the same to the bit."""
    notebook = [load_history(RECORDS / "logged-seed0")]
    assert recipe_of(notebook[0]) == get_recipe("logged")
    assert notebook[0].record["environment"]["threads"] == 2
    assert same_runs(notebook, folder_of("slower-machine/logged"))


def test_what_fast_was_before_and_other_machines_are_told():
    words = " ".join(TEXT.split())
    small = get_recipe("fast", **BEFORE["fast-all"] | SMALL)
    first = folder_of("fast-first")
    assert all(recipe_of(run) == small for run in first)
    mean = statistics.mean(run.final.accuracy for run in first)
    assert f"its four runs on the test set average {mean:.3f}%" in words
    for name in ("fast-all", "fast-third"):
        runs = folder_of(name)
        assert sorted(run.record["seed"] for run in runs) == list(range(10))
        assert all(recipe_of(run) == get_recipe("fast", **BEFORE[name]) for run in runs)
        assert finals_and_seconds(runs) in words
        assert finals_and_seconds(runs).split(" in ")[0] in README_WORDS
    for name in ("steady", "sprint"):
        slower = seeds_of(f"slower-machine/{name}")
        assert f"`{name}` {finals_and_seconds(slower)}" in words
    again = folder_of("fast-all-again")
    assert len(again) == 1
    assert recipe_of(again[0]) == get_recipe("fast", **BEFORE["fast-all"])
    seconds = f"took {seconds_of(again):.1f} s"
    assert seconds in words
    assert seconds.replace("took", "in") in README
    assert f"{mean:.3f}% over four seeds" in README
    assert f"{finals_and_seconds(seeds_of('slower-machine/steady'))} there, which" in README_WORDS
    assert f"{finals_and_seconds(folder_of('fast-third'))} there" in README_WORDS
    fast = finals_and_seconds(seeds_of("fast"))
    assert f"{fast} on another that rounds alike" in README_WORDS
    assert f"this choice was run with ten seeds: {fast.split(' in ')[0]}." in words


def test_what_the_notebook_found_on_the_curves():
    """Its prose against the records; the mistakes need MNIST, and stand in its outputs."""
    run, log = load_history(RECORDS / "logged-seed0"), logged_run()
    lowest, logs = (min(h, key=lambda epoch: epoch.test_loss) for h in (run, log))
    ours, theirs = (
        max(abs(b.correct - a.correct) for a, b in itertools.pairwise(history.epochs[4:]))
        for history in (run, log)
    )
    assert (ours, theirs) == (23, 20), "a fifth of a point or a little more"
    assert run.first_to_reach(9944) is run.best is run.final
    more = run.final.correct - run.epochs[-2].correct
    for part in (
        f"the last, the {run.best.epoch}th: it has {run.best.correct} of 10,000, {more} more",
        f"lowest at the {lowest.epoch}th epoch ({lowest.test_loss:.4f})",
        f"ends at {run.final.test_loss:.4f}",
        f"goes on down to {logs.test_loss:.4f} at the {logs.epoch}th",
    ):
        assert part in CELLS["curves-found"]
    first, third = (folder_of(name)[0] for name in ("logged", "third-machine/logged"))
    assert [first.record["seed"], third.record["seed"]] == [0, 0]
    told = [f"{other.final.accuracy:.2f}%" for other in (run, first, third)]
    others = "on two other machines at {1} and {2}"
    assert f"ends at {{0}}, {others}".format(*told) in CELLS["verdict-found"]
    assert f"ends at {{0}} there, {others}".format(*told) in README_WORDS
    assert f"mean of its last five epochs is {run.mean_of_last_five:.3f}%" in CELLS["verdict-found"]
    steady, fast = (seeds_of(name) for name in ("steady", "fast"))
    figures = [mean_and_sd([run.final.accuracy for run in runs]) for runs in (steady, fast)]
    told = (
        "ends at {}% over ten seeds, each at 99.44% or more; with `-p recipe fast` at {}%, nine of"
    )
    assert told.format(*figures) in CELLS["verdict-found"]
    assert [sum(run.final.correct >= 9944 for run in runs) for runs in (steady, fast)] == [10, 9]
    logged = mean_and_sd([run.final.accuracy for run in seeds_of("logged")])
    assert f"ten seeds of the recipe end at {logged}%" in CELLS["verdict-found"]


def test_readme_table():
    assignment = logged_run()
    recipes = [seeds_of(name) for name in RECIPES]
    parameters = [f"{runs[0].record['parameters']:,}" for runs in recipes]
    used = [get_recipe(name) for name in RECIPES]
    passes = [recipe.first + (recipe.epochs - 1) * recipe.hardest for recipe in used]
    finals = [mean_and_sd([run.final.accuracy for run in runs]) for runs in recipes]
    at_last = [sum(run.final.correct >= 9944 for run in runs) for runs in recipes]
    at_some = [sum(run.first_to_reach(9944) is not None for run in runs) for runs in recipes]
    fifth = [
        [load_history(RECORDS / "logged-seed0")],
        recipes[1],
        *(folder_of(f"fifth-machine/{name}") for name in RECIPES[2:]),
    ]
    slower, faster = [seconds_of(runs) for runs in fifth], [seconds_of(runs) for runs in recipes]
    for row in (
        ["parameters", "13,322", *parameters],
        ["epochs", str(len(assignment)), *(str(len(runs[0])) for runs in recipes)],
        ["passes over the training images", str(len(assignment)), *(f"{n:g}" for n in passes)],
        ["last epoch, %", f"{assignment.final.accuracy:.2f}", *finals],
        ["seeds that end at 99.44% or more", "0 of 1", *(f"{n} of 10" for n in at_last)],
        ["seeds that touch 99.44% at some epoch", "1 of 1", *(f"{n} of 10" for n in at_some)],
        [
            *("seconds of training, two CPU cores", "", f"{slower[0]:.0f}"),
            *(f"{seconds:.1f}" for seconds in slower[1:]),
        ],
        [
            *("the same on a faster machine", "", f"{faster[0]:.0f}", ""),
            *(f"{seconds:.1f}" for seconds in faster[2:]),
        ],
    ):
        assert f"| {' | '.join(row)} |".replace("|  |", "| |") in README
    assert f"the {slower[0]:.0f} seconds are one seed's" in README_WORDS
    told = f"({slower[0] / slower[1]:.1f} times by the runs in the table)"
    assert told in README_WORDS
    each = [[seconds_of([run]) for run in runs] for runs in recipes]
    fast, logged = each[1], each[0]
    assert f"of `fast` took from {min(fast):.0f} to {max(fast):.0f} s, those of" in README_WORDS
    assert f"faster machine from {min(logged):.0f} to {max(logged):.0f} s" in README_WORDS
    again = [run.final for run in folder_of("slower-machine/steady")]
    assert all(epoch.correct >= 9944 for epoch in again)
    assert f"end at {mean_and_sd([e.accuracy for e in again])}%, again all ten" in README_WORDS
    margins = []
    for runs, told in (
        (
            recipes[1],
            "The mean of `fast`, {:.3f}%, is above the target by {:.1f} times its standard",
        ),
        (recipes[2], "The mean of `steady`, {:.3f}%, is above it by {:.0f} times its own"),
    ):
        finals = [run.final.accuracy for run in runs]
        mean, error = statistics.mean(finals), standard_error(finals)
        assert told.format(mean, (mean - 99.44) / error) in README_WORDS
        assert f", {error:.3f}" in README_WORDS
        margins.append(round(100 * (mean - 99.44)))
        share = mean / 100
        assert f"by some {100 * (share * (1 - share) / 10_000) ** 0.5:.2f} points" in README_WORDS
    assert margins == [6, 5]
    assert "the margins are six and five images of 10,000" in README_WORDS
    assert f"ends below, at {min(run.final.accuracy for run in recipes[1]):.2f}%" in README_WORDS
    both = [*(run.final.correct for run in recipes[2]), *(epoch.correct for epoch in again)]
    assert (len(both), both.count(9944)) == (20, 3)
    assert "Three of these 20 runs have 9,944 right and not one more" in README_WORDS
    missing = [
        1 / statistics.NormalDist.from_samples(counts).cdf(9943.5)
        for counts in (both, [run.final.correct for run in recipes[1]])
    ]
    told = "one new seed in {:.0f} would miss the target with `steady`, perhaps one in {:.0f} with"
    assert told.format(*missing) in README_WORDS
    losses = [statistics.mean(run.final.test_loss for run in runs) for runs in recipes[1:3]]
    assert round(losses[0] / losses[1]) == 4
    told = "its test loss, {:.3f}, is four times that of `steady`, {:.3f}"
    assert told.format(*losses) in README_WORDS
    words = " ".join(TEXT.split())
    told = mean_and_error(gains(recipes[1], folder_of("fast-third")), sign="+")
    assert f"{told}, seed by seed" in words
    # From below: the same number of right images in all.
    told = mean_and_error(gains(fifth[2], recipes[1]))
    assert f"seed by seed `fast` is no better, by {told} points" in README_WORDS
    assert f"as good as `steady` there (+{told} where both round alike)" in words
    shares = []
    for run in recipes[1]:
        seconds = [epoch.seconds for epoch in run]
        shares.append((seconds[1] - statistics.mean(seconds[2:])) / sum(seconds))
    assert round(1 / statistics.mean(shares)) == 7, "a seventh of its time goes into scoring"


def test_what_a_second_thread_saves():
    longer = []
    for folder in MACHINES:
        text = (RECORDS / folder / "benchmark.txt").read_text()
        rows = re.findall(r"^(\d) +(\d+) +mnist_lib.train +\S+ +(\S+) ", text, re.MULTILINE)
        seconds = {(threads, batch): float(value) for threads, batch, value in rows}
        longer += [seconds["1", batch] / seconds["2", batch] - 1 for batch in ("32", "128", "512")]
    told = f"one thread takes {min(longer):.0%} to {max(longer):.0%} longer than two"
    assert told in README_WORDS


@pytest.mark.parametrize("folder", MACHINES)
def test_readme_speed_is_the_benchmarks(folder):
    text = (RECORDS / folder / "benchmark.txt").read_text()
    ratios = re.findall(r"^2 +(\d+) +mnist_lib.train +\S+ +\S+ +(\S+) +(\S+) ", text, re.MULTILINE)
    assert [batch for batch, *_ in ratios] == ["32", "128", "512"]
    three = ", ".join(ratio for _, ratio, _ in ratios)
    share = max(int(share.rstrip("%")) for *_, share in ratios)
    if folder != ".":
        assert f"{three} times and {share}% ([table](" in README_WORDS
        return
    assert f"{three} times as fast at batch 32, 128 and 512" in README_WORDS
    assert f"{share}% of the machine's float32 peak" in README_WORDS


def test_what_checkpoints_cost():
    text = (RECORDS / "fifth-machine" / "benchmark.txt").read_text()
    kept = re.findall(r"^recipe (\w+), 2 threads: .+ ms, (.+)% of an epoch$", text, re.MULTILINE)
    assert tuple(name for name, _ in kept) == RECIPES
    assert all(float(share) <= 1 for _, share in kept)
    shares = "{}%, {}%, {}% and {}% of an epoch".format(*(share for _, share in kept))
    assert f"Checkpoints cost {shares}" in README_WORDS


EARLY = json.loads((RECORDS / "validation" / "early.json").read_text(encoding="utf-8"))["runs"]
FAST_BASE = {
    "net": "assignment",
    "epochs": 3,
    "batch_size": 64,
    "learning_rate": 0.15,
    "crop": 24,
    "warm_up": 0.15,
    "rotation": 4,
    "shift": 0.5,
    "scale": 0.03,
    "averaging": 0.995,
}
FAST_IDEAS = {
    "3 epochs, middle 24 pixels": {},
    "the whole 28 pixels": {"crop": 28},
    "4 epochs": {"epochs": 4},
    "the whole 28 pixels, 4 epochs": {"crop": 28, "epochs": 4},
    "the whole 28 pixels, 4 epochs, rate 0.1, ±7°, 1 px, 5%, averaging 0.99": {
        **{"crop": 28, "epochs": 4, "learning_rate": 0.1},
        **{"rotation": 7, "shift": 1, "scale": 0.05, "averaging": 0.99},
    },
    "±10°, 1 px, 10%": {"rotation": 10, "shift": 1, "scale": 0.1},
    "no augmentation": {"rotation": None, "shift": None, "scale": None},
    "peak rate 0.3": {"learning_rate": 0.3},
    "warm-up 0.3": {"warm_up": 0.3},
    "batch 128, peak rate 0.2, averaging 0.99": {
        **{"batch_size": 128, "learning_rate": 0.2, "averaging": 0.99}
    },
}
SPRINT_BASE = {"epochs": 2, "batch_size": 128, "learning_rate": 0.3, "crop": 24, "warm_up": 0.2}
AUGMENTED = {"rotation": 4, "shift": 0.5, "scale": 0.03}
SPRINT_IDEAS = {
    "folded, 16-24-48": {},
    "folded, 16-24-48, middle 20 pixels": {"crop": 20},
    "folded, 16-16-48": {},
    "stride 2, 16-24-48": {},
    "stride 2, 16-24-48, middle 22 pixels": {"crop": 22},
    "stride 2, 16-24-48, middle 20 pixels": {"crop": 20},
    "stride 2, 16-24-32": {},
    "stride 2, 16-24-32, first layer 3 x 3": {},
    "stride 2, 16-24-32, batch 64, peak rate 0.2, shift 0.5 px": {
        **{"batch_size": 64, "learning_rate": 0.2, "rotation": 0, "shift": 0.5}
    },
    "stride 2, 16-24-32, ±4°, 0.5 px, 3%": AUGMENTED,
    "stride 2, 16-24-32, augmented so, peak rate 0.15": AUGMENTED | {"learning_rate": 0.15},
    "stride 2, 16-24-32, augmented so, batch 256, peak rate 0.5": AUGMENTED
    | {"batch_size": 256, "learning_rate": 0.5},
    "stride 2, 16-32-32, augmented so": AUGMENTED,
    "stride 2, 16-32-32, augmented so, Adam 0.01": AUGMENTED
    | {"learning_rate": 0.01, "optimizer": "adam"},
    "stride 2, 8-16-32, augmented so, 3 epochs": AUGMENTED | {"epochs": 3},
    "stride 2, 16-32-32, augmented so, 1 epoch, batch 64, peak rate 0.2": AUGMENTED
    | {"epochs": 1, "batch_size": 64, "learning_rate": 0.2},
}


def four_folds(runs, settings):
    runs = [run for run in runs if run["settings"] == settings]
    assert sorted(run["fold"] for run in runs) == [0, 1, 2, 3]
    return runs


def means(settings, kind):
    wanted = {name: value for name, value in settings.items() if value is not None}
    runs = four_folds(EARLY, wanted)
    accuracy, loss = (statistics.mean(run[kind][of] for run in runs) for of in ("accuracy", "loss"))
    return f"{accuracy:.3f} | {loss:.4f} |", f"{runs[0]['parameters']:,}"


@pytest.mark.parametrize("name", FAST_IDEAS)
def test_table_of_ideas_for_fast(name):
    row, _ = means(FAST_BASE | FAST_IDEAS[name], "averaged")
    assert re.search(rf"^\| {re.escape(name)} \|[^|]*\| {re.escape(row)}$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", SPRINT_IDEAS)
def test_table_of_ideas_for_sprint(name):
    kind, channels = name.split(", ")[:2]
    first = {"folded": "fold ", "stride 2": "stride "}[kind] + ("3x3 " if "3 x 3" in name else "")
    row, parameters = means(SPRINT_BASE | {"net": first + channels} | SPRINT_IDEAS[name], "plain")
    assert f"\n| {name} | {parameters} | {row}\n" in TEXT


SEARCH = json.loads((RECORDS / "validation" / "mining.json").read_text(encoding="utf-8"))["runs"]
MINING_IDEAS = {
    "all images, 4 epochs": {"epochs": 4},
    "its first layer fixed after the first epoch": {
        "epochs": 4,
        "first_layer_fixed_after_epochs": 1,
    },
    "its labels smoothed by 0.1": {"epochs": 4, "label_smoothing": 0.1},
    "all images, 3 epochs, first layer fixed after half of one": {
        "epochs": 3,
        "first_layer_fixed_after_epochs": 0.5,
    },
    "hardest 50%, 4 epochs": {"epochs": 4, "hardest": 0.5},
    "hardest 50%, 3 epochs": {"epochs": 3, "hardest": 0.5},
    "hardest 33%, 4 epochs": {"epochs": 4, "hardest": 0.33},
    "hardest 25%, 5 epochs": {"epochs": 5, "hardest": 0.25},
    "hardest 25%, 7 epochs": {"epochs": 7, "hardest": 0.25},
    "hardest 20%, 6 epochs": {"epochs": 6, "hardest": 0.2},
    "hardest 12.5%, 5 epochs": {"epochs": 5, "hardest": 0.125},
    "hardest 12.5%, 7 epochs": {"epochs": 7, "hardest": 0.125},
    "hardest 12.5%, 9 epochs": {"epochs": 9, "hardest": 0.125},
    "hardest 10%, 11 epochs": {"epochs": 11, "hardest": 0.1},
    "hardest 12.5%, 5 epochs, averaging 0.99": {"epochs": 5, "hardest": 0.125, "averaging": 0.99},
    "hardest 12.5%, 5 epochs, peak rate 0.2": {"epochs": 5, "hardest": 0.125, "learning_rate": 0.2},
    "hardest 6.25%, 9 epochs": {"epochs": 9, "hardest": 0.0625},
    "hardest 6.25%, 9 epochs, the first of 20 x 20 pixels": {
        "epochs": 9,
        "hardest": 0.0625,
        "side_in_first_epoch": 20,
    },
    "hardest 6.25%, 9 epochs, all scored after the first": {
        "epochs": 9,
        "hardest": 0.0625,
        "scored": "all",
    },
    "first 50%, all scored, hardest 6.25%, 9 epochs": {
        "epochs": 9,
        "hardest": 0.0625,
        "first": 0.5,
        "scored": "all",
    },
    "first 50%, all scored, hardest 6.25%, 13 epochs": {
        "epochs": 13,
        "hardest": 0.0625,
        "first": 0.5,
        "scored": "all",
    },
    "first 33%, all scored, hardest 6.25%, 13 epochs": {
        "epochs": 13,
        "hardest": 0.0625,
        "first": 0.33,
        "scored": "all",
    },
    "first 50%, all scored, hardest 3%, 17 epochs": {
        "epochs": 17,
        "hardest": 0.03,
        "first": 0.5,
        "scored": "all",
    },
    "first 50%, hardest 6.25%, 9 epochs": {
        "epochs": 9,
        "hardest": 0.0625,
        "first": 0.5,
        "scored": "unseen",
    },
    "first 50%, hardest 6.25%, 13 epochs": {
        "epochs": 13,
        "hardest": 0.0625,
        "first": 0.5,
        "scored": "unseen",
    },
    "first 50%, hardest 10%, 9 epochs": {
        "epochs": 9,
        "hardest": 0.1,
        "first": 0.5,
        "scored": "unseen",
    },
    "first 50%, hardest 12.5%, 6 epochs": {
        "epochs": 6,
        "hardest": 0.125,
        "first": 0.5,
        "scored": "unseen",
    },
    "first 35%, hardest 8%, 9 epochs": {
        "epochs": 9,
        "hardest": 0.08,
        "first": 0.35,
        "scored": "unseen",
    },
    "first 35%, hardest 8%, 9 epochs, peak rate 0.1": {
        "epochs": 9,
        "hardest": 0.08,
        "first": 0.35,
        "scored": "unseen",
        "learning_rate": 0.1,
    },
    "first 35%, hardest 8%, 11 epochs": {
        "epochs": 11,
        "hardest": 0.08,
        "first": 0.35,
        "scored": "unseen",
    },
    "first 25%, hardest 8%, 11 epochs": {
        "epochs": 11,
        "hardest": 0.08,
        "first": 0.25,
        "scored": "unseen",
    },
}


@pytest.mark.parametrize("name", MINING_IDEAS)
def test_table_of_ideas_for_less_time(name):
    settings = MINING_IDEAS[name]
    runs = four_folds(SEARCH, settings)
    passes = settings.get("first", 1) + settings.get("hardest", 1) * (settings["epochs"] - 1)
    assert_told(name, passes, [run["accuracies"][-1] for run in runs], runs)


def assert_told(name, passes, accuracies, runs):
    """That the text has the line of an idea, whatever was predicted of it."""
    accuracy, loss = statistics.mean(accuracies), statistics.mean(run["loss"] for run in runs)
    row = rf"{re.escape(f'| {name} | {passes:.2f} |')}[^|]*\| {accuracy:.3f} \| {loss:.4f} \|"
    assert re.search(f"^{row}$", TEXT, re.MULTILINE)


LAST = json.loads((RECORDS / "validation" / "optimizers.json").read_text(encoding="utf-8"))["runs"]
ADAMW, MUON = {"optimizer": "adamw"}, {"optimizer": "muon"}
WIDE, SHRINKING = {"batch_size": 128, "averaging": 0.99}, [1, 0.33, 0.25, 0.2, 0.15, 0.12, 0.1]
LAST_IDEAS = {
    "`steady` as it is": {},
    "Muon, rate 0.02": MUON | {"muon_learning_rate": 0.02},
    "Muon, rate 0.05": MUON | {"muon_learning_rate": 0.05},
    "Muon, rate 0.1": MUON | {"muon_learning_rate": 0.1},
    "Muon, rate 0.05, 5 epochs": MUON | {"muon_learning_rate": 0.05, "epochs": 5},
    "AdamW, rate 0.005": ADAMW | {"learning_rate": 0.005},
    "AdamW, rate 0.01": ADAMW | {"learning_rate": 0.01},
    "AdamW, rate 0.02": ADAMW | {"learning_rate": 0.02},
    "AdamW, rate 0.01, 5 epochs": ADAMW | {"learning_rate": 0.01, "epochs": 5},
    "AdamW, rate 0.02, 5 epochs": ADAMW | {"learning_rate": 0.02, "epochs": 5},
    "AdamW, rate 0.01, batch 128, averaging 0.99": ADAMW | WIDE | {"learning_rate": 0.01},
    "AdamW, rate 0.02, batch 128, averaging 0.99": ADAMW | WIDE | {"learning_rate": 0.02},
    "AdamW, rate 0.01, hardest 33, 25, 20, 15, 12, 10%": ADAMW
    | {"learning_rate": 0.01, "share_by_epoch": SHRINKING},
    "first layer set from patches, principal components": {
        "first_layer_from_patches": "components"
    },
    "first layer set from patches, whitened": {"first_layer_from_patches": "whitened"},
    "batch 64, from the second epoch on 128": {"batch_size_by_epoch": [64, *[128] * 6]},
    "batch 128, from the second epoch on 64": {"batch_size_by_epoch": [128, *[64] * 6]},
    "batch 128, rate 0.2, averaging 0.99": WIDE | {"learning_rate": 0.2},
    "batch 128, rate 0.3, averaging 0.99": WIDE | {"learning_rate": 0.3},
    "hardest 33, 25, 20, 15, 12, 10%": {"share_by_epoch": SHRINKING},
    "hardest 40, 25, 20, 15, 12, 10, 10%": {
        "share_by_epoch": [1, 0.4, 0.25, 0.2, 0.15, 0.12, 0.1, 0.1]
    },
}


@pytest.mark.parametrize("name", LAST_IDEAS)
def test_table_of_ideas_for_other_optimizers(name):
    settings = LAST_IDEAS[name]
    runs = four_folds(LAST, settings)
    shares = settings.get("share_by_epoch", [1] + [0.25] * (settings.get("epochs", 7) - 1))
    assert_told(name, sum(shares), [run["accuracy"] for run in runs], runs)


def test_what_the_last_ideas_lose():
    def mean(kind, name):
        return statistics.mean(run[kind] for run in four_folds(LAST, LAST_IDEAS[name]))

    base = "`steady` as it is"
    assert mean("seconds", "batch 128, from the second epoch on 64") >= mean("seconds", base)
    words = " ".join(TEXT.split())
    for what, told in (
        ("5 epochs", "five epochs by {} to {} points"),
        ("128(?!, from)|second epoch on 128", "larger batches by {} to {}"),
        ("10%", "shrinking shares by {} to {}"),
    ):
        losses = [
            mean("accuracy", base) - mean("accuracy", name)
            for name in LAST_IDEAS
            if re.search(what, name)
        ]
        assert told.format(f"{min(losses) - 1e-9:.2f}", f"{max(losses) + 1e-9:.2f}") in words


REFINEMENTS = json.loads((RECORDS / "validation" / "refinements.json").read_text(encoding="utf-8"))[
    "runs"
]
REFINED = {
    "`steady` as it is": {},
    "5 epochs": {"epochs": 5},
    "hardest 12.5%, 9 epochs": {"hardest": 0.125, "epochs": 9},
    "hardest 15%, 9 epochs": {"hardest": 0.15, "epochs": 9},
    "hardest 12.5%, 13 epochs": {"hardest": 0.125, "epochs": 13},
    "first 50%, the others then scored": {"first": 0.5, "left_out": "scored"},
    "first 50%, the others never": {"first": 0.5, "left_out": "never"},
    "first 50%, those hardest for a linear classifier, the others never": {
        "first": 0.5,
        "first_by": "linear",
        "left_out": "never",
    },
    "the same, hardest 20%": {
        "first": 0.5,
        "first_by": "linear",
        "left_out": "never",
        "hardest": 0.2,
    },
    "first 35%, those hardest for a linear classifier, the others never": {
        "first": 0.35,
        "first_by": "linear",
        "left_out": "never",
    },
    "first 35%, the others next, hardest 8%, 9 epochs": {
        "first": 0.35,
        "left_out": "first",
        "hardest": 0.08,
        "epochs": 9,
    },
    "without the hardest 0.2% of all": {"skipped_hardest": 0.002},
    "momentum 0.95, rate 0.075": {"momentum": 0.95, "learning_rate": 0.075},
    "momentum 0.8, rate 0.3": {"momentum": 0.8, "learning_rate": 0.3},
    "warm-up 0.15": {"warm_up": 0.15},
    "convolutions start as identities (Dirac)": {"initialization": "dirac"},
    "convolutions start by Kaiming's normal distribution, given up": {"initialization": "kaiming"},
    "batch norm's biases at 4 times the rate": {"norm_bias_rate": 4},
    "lookahead, every 5 steps half the way": {"lookahead": 0.5},
    "first epoch not augmented, then ±8°, 1 px, 6%": {
        "augmented_from_epoch": 2,
        "rotation": 8.0,
        "shift": 1.0,
        "scale": 0.06,
    },
    "labels smoothed by 0.05": {"label_smoothing": 0.05},
    "batch norm's statistics of 5,000 images": {"statistics_of": 5000},
    "batch norm's statistics of 5,000 augmented images": {
        "statistics_of": 5000,
        "statistics_augmented": True,
    },
    "batch norm's statistics of 20,000 images": {"statistics_of": 20000},
    "tested on five shifted copies": {"tested_shifts": 5},
}


def refined(settings):
    return {run["fold"]: run for run in REFINEMENTS if run["settings"] == settings}


def gains_over_steady(settings):
    base = refined({})
    return [run["accuracy"] - base[fold]["accuracy"] for fold, run in refined(settings).items()]


@pytest.mark.parametrize("name", REFINED)
def test_table_of_refinements(name):
    runs = refined(REFINED[name])
    cells = [name, str(len(runs)), f"{runs[0]['passes']:.2f}"]
    over = gains_over_steady(REFINED[name])
    accuracy = mean_and_error(over, sign="+") if len(over) > 1 else f"{over[0]:+.3f}"
    if not REFINED[name]:
        accuracy = f"{statistics.mean(run['accuracy'] for run in runs.values()):.3f}"
    losses = [run["loss"] for run in runs.values() if "loss" in run]
    loss = f" {statistics.mean(losses):.4f}" if losses else ""
    row = rf"^\| {re.escape(' | '.join(cells))} \|[^|]*\| {re.escape(accuracy)} \|{loss} \|$"
    assert re.search(row, TEXT, re.MULTILINE)


@pytest.mark.parametrize(("runs", "ideas"), [(LAST, LAST_IDEAS), (REFINEMENTS, REFINED)])
def test_ideas_are_all_told(runs, ideas):
    assert {json.dumps(run["settings"], sort_keys=True) for run in runs} == {
        json.dumps(settings, sort_keys=True) for settings in ideas.values()
    }


def test_what_fewer_passes_lose():
    words = " ".join(TEXT.split())
    names = ("5 epochs", "hardest 12.5%, 9 epochs", "hardest 15%, 9 epochs")
    five, eighth, cheaper = (gains_over_steady(REFINED[name]) for name in names)
    assert f"five epochs lose {-statistics.mean(five):.2f} points" in words
    assert f"the hardest 12.5% in nine epochs {-statistics.mean(eighth):.2f}." in words
    assert abs(statistics.mean(cheaper)) < standard_error(cheaper)
    passes = [refined(settings)[0]["passes"] for settings in (REFINED[names[2]], {})]
    assert 1 - passes[0] / passes[1] == pytest.approx(1 / 8, abs=0.01)
    assert "The hardest 15% in nine epochs, an eighth cheaper, may be as good as `steady`" in words


def test_how_much_folds_differ():
    words = " ".join(TEXT.split())
    half = [
        statistics.mean(
            run.get("averaged", run["plain"])["accuracy"] for run in EARLY if run["fold"] % 2 == odd
        )
        for odd in (False, True)
    ]
    assert round(half[1] - half[0]) == 1
    assert "folds differ in difficulty by a point" in words
    finals = [run["accuracy"] for run in refined({}).values()]
    assert f"are shuffled, and differ by {max(finals) - min(finals):.1f})" in words
    errors = {4: [], 12: []}
    for settings in REFINED.values():
        over = gains_over_steady(settings)
        if settings and len(over) in errors:
            errors[len(over)].append(standard_error(over))
    assert statistics.median(errors[4]) == pytest.approx(0.05, abs=0.01)
    assert "a difference of two has a standard error of about 0.05 points" in words
    assert statistics.median(errors[12]) == pytest.approx(0.025, abs=0.004)
    assert "has a standard error of about 0.025 points" in words


BEFORE = {  # what `fast` was before
    "fast-all": {"epochs": 4, "first": 1.0, "hardest": 1.0, "label_smoothing": 0.0},
    "fast-third": {"label_smoothing": 0.0},
}
SMALL = {"rotation": 4.0, "shift": 0.5, "scale": 0.03}
LARGE = {"rotation": 8.0, "shift": 1.0, "scale": 0.06}
FINALISTS = {  # a folder's name: the recipe, now or before, and then what was changed
    "all images, 4 epochs, ±4°, 0.5 px, 3%": ("fast-all", SMALL),
    "all images, 4 epochs, ±4°, 0.5 px, 3%, middle 22 pixels": ("fast-all", {"crop": 22} | SMALL),
    "all images, 4 epochs, ±4°, 0.5 px, 3%, no averaging": ("fast-all", {"averaging": 0.0} | SMALL),
    "all images, 3 epochs, ±4°, 0.5 px, 3%": ("fast-all", {"epochs": 3} | SMALL),
    "all images, 5 epochs, ±4°, 0.5 px, 3%": ("fast-all", {"epochs": 5} | SMALL),
    "all images, 6 epochs, ±4°, 0.5 px, 3%": ("fast-all", {"epochs": 6} | SMALL),
    "all images, 6 epochs, ±8°, 1 px, 6%": ("fast-all", {"epochs": 6} | LARGE),
    "all images, 5 epochs": ("fast-all", {"epochs": 5}),
    "all images, 4 epochs": ("fast-all", {}),
    "`steady`": ("steady", {}),
    "first 35%, hardest 8%, 8 epochs": ("fast-third", {"epochs": 8}),
    "first 35%, hardest 8%, 9 epochs": ("fast-third", {}),
    "first 35%, hardest 8%, 11 epochs": ("fast-third", {"epochs": 11}),
    "`sprint`": ("sprint", {}),
    "`sprint`, middle 24 pixels": ("sprint", {"crop": 24}),
}


SMOOTHED = {  # as above
    "`steady`": ("steady", {}),
    "the third choice, no smoothing": ("fast-third", {}),
    "labels smoothed by 0.1: `fast`": ("fast", {}),
    "by 0.2": ("fast", {"label_smoothing": 0.2}),
    "by 0.1, 11 epochs": ("fast", {"epochs": 11}),
    "by 0.1, averaging 0.99": ("fast", {"averaging": 0.99}),
    "by 0.1, peak rate 0.2": ("fast", {"learning_rate": 0.2}),
    "by 0.1, batch 128, peak rate 0.3, averaging 0.99": (
        "fast",
        {"averaging": 0.99, "batch_size": 128, "learning_rate": 0.3},
    ),
}


def folds_of(prefix, changes):
    """The runs on held-out images of a recipe, now or before, so changed; in order of folds."""
    folder = "-".join([prefix, *(f"{key}{value:g}" for key, value in changes.items())])
    recipe = prefix.partition("-")[0]
    runs = folder_of(f"validation/{folder}")
    for run in runs:
        made = dataclasses.replace(recipe_of(run), name=recipe)
        assert made == get_recipe(recipe, **BEFORE.get(prefix, {}) | changes)
        assert (run.source, run.images, run.record["train_images"]) == ("validation", 5000, 55_000)
    runs.sort(key=lambda run: run.record["seed"])
    assert [run.record["seed"] for run in runs] == list(range(len(runs)))
    return runs


@pytest.mark.parametrize("name", FINALISTS)
def test_table_of_finalists(name):
    runs = folds_of(*FINALISTS[name])
    accuracy = statistics.mean(run.final.accuracy for run in runs)
    loss = statistics.mean(run.final.test_loss for run in runs)
    assert f"\n| {name} | {len(runs)} | {accuracy:.3f} | {loss:.4f} |\n" in TEXT


@pytest.mark.parametrize("name", SMOOTHED)
def test_table_of_smoothed_labels(name):
    runs, base = (folds_of(*SMOOTHED[which]) for which in (name, "`steady`"))
    assert len(runs) == len(base) == 12
    accuracy = statistics.mean(run.final.accuracy for run in runs)
    loss = statistics.mean(run.final.test_loss for run in runs)
    over = gains(runs, base)
    against = f" {mean_and_error(over, sign='+')}" if any(over) else ""
    cells = re.escape(f"| {accuracy:.3f} |{against} | {loss:.4f} |")
    assert re.search(rf"^\| {re.escape(name)} \|[^|]*{cells}$", TEXT, re.MULTILINE)


def test_what_smoothing_gains_on_the_folds():
    runs, third, steady = (
        folds_of(*SMOOTHED[name])
        for name in ("labels smoothed by 0.1: `fast`", "the third choice, no smoothing", "`steady`")
    )
    told = f"Smoothing gains {mean_and_error(gains(runs, third))} over"
    assert told in " ".join(TEXT.split())
    assert f"it was {mean_and_error(gains(steady, runs))} lower" in README_WORDS


def test_the_averages_decay_is_not_reached():
    runs, base = (
        folds_of(*SMOOTHED[name])
        for name in ("by 0.1, averaging 0.99", "labels smoothed by 0.1: `fast`")
    )
    assert same_runs(runs, base)
    recipe = get_recipe("fast")
    steps = sum(recipe.epoch_steps(60_000))
    reached = (1 + steps) / (10 + steps)
    assert reached < recipe.averaging
    assert f"it gets to {reached:.4f}, never to the recipe's {recipe.averaging}" in TEXT
