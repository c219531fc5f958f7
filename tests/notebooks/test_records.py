"""The records: their schema, and that the tables in the README files are theirs."""

import collections
import dataclasses
import json
import shutil

import distill
import evidence
import pandas
import pytest
import report

from mnist_lib import RECIPES, Recipe, get_recipe, load_study
from tests.notebooks.running import RECORDS, ROOT
from tests.test_history import make

LINES = {"search.jsonl", "benchmark.jsonl"}  # of other things than runs
RUNS = sorted(path for path in RECORDS.glob("*.jsonl") if path.name not in LINES)
COLUMNS = {"recipe", "seed", "machine", "threads", "device", "processor", "platform", "torch"}
COLUMNS |= {"python", "mnist_lib", "parameters", "train_images", "data"}


def lines(name):
    return [json.loads(line) for line in (RECORDS / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_runs(path):
    runs = load_study(path)
    goals = {(row["recipe"], row["net"]) for row in evidence.csv_rows("goals.csv")}
    for run in runs:
        special = {"distilled"} if run.recipe.name == "distilled" else set()
        assert set(run.record) - {"memory"} == COLUMNS | special, "memory: studies since joblib"
        recipe = run.recipe  # a field that the record lacks has its default
        assert dataclasses.asdict(recipe).items() >= run.record["recipe"].items()
        assert len(run) == recipe.epochs
        assert [e.batches for e in run] == recipe.epoch_steps(run.record["train_images"])
        held_out = path.stem in ("bridge", "folds")
        source, tested = ("validation", 5_000) if held_out else ("mnist", 10_000)
        assert (run.source, run.images) == (source, tested)
        assert run.record["train_images"] == (55_000 if source == "validation" else 60_000)
        if path.stem in RECIPES:
            assert recipe == RECIPES[path.stem]
        if path.stem == "frontier":
            assert (recipe.name, recipe.net) in goals
            net = f"p{run.record['parameters']}"
            taught = distill.student_recipe(recipe.net)
            assert recipe == (taught if special else get_recipe(recipe.name, net=net))
        assert run.record.get("memory", 0) < 1_200, "MB"
    names = ("seed", "machine", "threads")
    assert len({(run.recipe, *map(run.record.get, names)) for run in runs}) == len(runs)
    assert len(pandas.read_json(path, lines=True)) == len(runs)


def test_the_same_run_on_machines_that_round_alike():
    """Machines of one name: the same seed of a recipe with as many threads, the same bits."""
    made = collections.defaultdict(list)
    for path in RUNS:
        for run in load_study(path):
            name = run.record["machine"]
            if name != "d1":  # an earlier version of the net
                # Of two characters, the letter says it; b1 and b2 round as dab6.
                alike = "dab6" if name in ("b1", "b2") else name if len(name) == 4 else name[0]
                settings = run.record["seed"], run.record["threads"], run.record["parameters"]
                key = (run.recipe, *settings, alike, run.source, repr(run.record.get("distilled")))
                made[key].append([(epoch.correct, epoch.test_loss) for epoch in run])
    several = [runs for runs in made.values() if len(runs) > 1]
    assert len(several) > 30
    assert all(run == runs[0] for runs in several for run in runs)


def test_search_and_benchmark():
    runs = lines("search.jsonl")
    needed = {"search", "idea", "predicted", "machine", "fold", "accuracy", "settings"}
    assert all(needed <= set(run) for run in runs)
    assert len({(run["search"], run["idea"], run["fold"]) for run in runs}) == len(runs)
    assert len({(run["search"], run["idea"]) for run in runs}) > 100
    rows = lines("benchmark.jsonl")
    assert all({"machine", "device", "way"} <= set(row) for row in rows)
    for name, read in (("search", runs), ("benchmark", rows)):
        assert len(pandas.read_json(RECORDS / f"{name}.jsonl", lines=True)) == len(read) > 0


def test_what_the_search_says_of_the_librarys_own_runs():
    folds = {}
    defaults = dataclasses.asdict(Recipe("x", epochs=1, batch_size=1, learning_rate=1.0))
    for run in load_study(RECORDS / "folds.jsonl"):
        recipe = run.record["recipe"]
        settings = {k: v for k, v in recipe.items() if k != "name" and v != defaults[k]}
        final = (run.final.accuracy, run.final.test_loss)
        folds.setdefault(json.dumps([sorted(settings.items()), run.record["seed"]]), final)
    own = ("finalists", "all folds", "smoothing", "ablation")
    searched = [run for run in lines("search.jsonl") if run["search"] in own]
    assert len(searched) > 100
    for run in searched:
        key = json.dumps([sorted(run["settings"].items()), run["seed"]])
        assert (run["accuracy"], run["loss"]) == pytest.approx(folds[key])


def test_writing_the_tables_again_changes_nothing(tmp_path):
    """But a table that is not the records' is written again."""
    for document in (ROOT / "README.md", RECORDS / "README.md"):
        copy = shutil.copy(document, tmp_path / f"{document.parent.name}.md")
        report.tables(copy)
        assert copy.read_text(encoding="utf-8") == document.read_text(encoding="utf-8")
    bent = tmp_path / "bent.md"
    bent.write_text("before\n<!-- table: files -->\nbent\n<!-- /table -->\nafter\n")
    report.tables(bent)
    text = bent.read_text(encoding="utf-8")
    assert "bent" not in text
    assert text.startswith("before\n<!-- table: files -->\n| file |")
    assert text.endswith("|\n<!-- /table -->\nafter\n")


def test_the_library_carries_what_the_records_say():
    carried = {"recorded.jsonl": report.recorded(), "held_out.csv": report.held_out()}
    for name, text in carried.items():
        assert (ROOT / "mnist_lib" / "grade" / name).read_text(encoding="utf-8") == text


def test_ranks_by_hand():
    runs = [make(9950, 9930), make(9940, 9940), make(9944, 9945)]
    rows = report.ranks_table(runs, [make(9945, 9940), make(9960, 9960)]).rows
    cells = {row[""]: tuple(row.values())[1:] for row in rows}
    assert cells["touch 99.44% at some epoch"][0].startswith("2 of 3")
    assert cells["end at 99.44% or more"][0].startswith("1 of 3")
    assert cells["choosing the best epoch adds, points ± standard error"][0] == "+0.067 ± 0.067"
    assert cells["rank of the best epoch"][1:] == ("2 of 4", "1 of 4"), "an equal is not better"
    assert cells["rank of the last epoch"][1:] == ("2 of 4", "1 of 4")
