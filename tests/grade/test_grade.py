"""A class is graded: logs and notebooks in the formats people have, with numbers of our own."""

import csv
import json
import os
import subprocess
import sys

import pytest

from mnist_lib import DataError, format_log, logged_run, parse_log, read_notebook
from mnist_lib.grade.__main__ import main
from mnist_lib.grade.notebooks import leaks, parameters, read_submission

BAR = "Loss=0.2{0} Batch_id=468 Accuracy=95.1{0}: 100%|███| 469/469 [00:20<00:00, 23.10it/s]\n"
SMALL = "loss=0.1{0} batch_id=468 Accuracy = 96.2{0}: 100%|███| 469/469 [00:20<00:00, 23.10it/s]\n"
NEXT = "loss=0.3{0} batch_id=0:   0%|   | 0/469 [00:00<?, ?it/s]\n"
TEST = "Test set: Average loss: 0.0{2}, Accuracy: {1}/10000 ({3:.2f}%)\n\n"
COUNTED = [
    BAR + TEST,
    "EPOCH: {0}\n" + SMALL + NEXT + TEST,
    "epoch= {0} " + SMALL + "train set: Accuracy: 58{2}1/60000 (98%)\n" + TEST,
    TEST,
    "100%|███| 469/469 [00:20<00:00, 23.10it/s]\n" + TEST,
    "Epoch {0}\nTest set: Average loss: 0.16, Validation Accuracy: {1}/10000 ({3:.2f}%)\n",
    "Validation set: Average loss: 0.07, Accuracy: {1}/10000\nBest test accuracy: 99.9%\n",
    "Epoch {0}/4 Val Accuracy:  {1}/10000 | Percent: {3:.2f}%\n",
    "| {0} | 0.0{2} | 58{2}1/60000 | {1}/10000 |\n",
    "Epoch: {0} | Loss: 0.34 | Accuracy: 98.8%: 100%|██| 469/469 [00:18<00:00, 25.5it/s]\n" + TEST,
    "Test set: Average loss: 0.0{2}, Accuracy: {1}/10000 ({3:.2f}%) ",  # newlines lost
    BAR + TEST.replace("{1}/1", "58{2}1/6").replace("{3:.2f}", "98") + TEST,  # both loaders tested
    "Epoch {0}\nValidation set: Average loss: 0.07, Accuracy: 9{2}1/10000\n" + TEST,
    "Epoch {0}: test loss: 0.0{2}, accuracy: {1}.0/10000.0\n",
    "  5%|▌  | 1/19 [00:24<07:36, 24.1s/it]Test set: Average loss: 0.0{2}, Accuracy: {1}/10000\n",
]
SHARES = [
    "Test : Loss = 0.0171, Accuracy = {3:.2f}%\n",
    "Epoch {0} Train: 97.1% | Test: {3:.2f}%\n",
    "Train Acc: 0.981 Val Accu: {4:.4f}\n",
    "Epoch {0}: Test Accuracy: {3}00000000001%\n",  # of binary fractions
    "Epoch {0}\n-----\nTest Error: \n Accuracy: {3:.2f}%, Avg loss: 0.0213\n",
    "Epoch {0}: 50%|█ | 1/2 [00:00, val acc=91.2]\rEpoch {0}: 100%|██| 2/2 [val acc={3:.2f}]\n",
    "Epoch {0}, Train/Test Acc: 98.1/99.1\nTest acc: {4:.4f}\n",
]
ROUNDED = "Test : Loss = 0.0171, Accuracy = {3:.1f}%\n"
STOPPED = "Loss=0.7 Batch_id=41 Accuracy=94.1: 9%|█ | 42/469 [00:02<00:20, 23.10it/s]\n"
RIGHT = [9512, 9704, 9801, 9848]


def show(text, right=RIGHT):
    epochs = enumerate(right, 1)
    return "".join(text.format(n, r, 60 - n, r / 100, r / 10_000) for n, r in epochs)


def out(text, **more):
    return {"output_type": "stream", "name": "stderr", "text": text.splitlines(True)} | more


def notebook(path, *cells):
    """Cells of source and output text, executed in this order."""
    cells = [
        {"cell_type": "code", "execution_count": n, "source": source, "outputs": [out(text)]}
        for n, (source, text) in enumerate(cells, 1)
    ]
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
    return path


def read(path, text):
    path.write_text(text, "utf-8")
    return read_notebook(path)


@pytest.mark.parametrize("text", COUNTED)
def test_formats_with_counts(tmp_path, text):
    once, twice = notebook(tmp_path / "a.ipynb", ("", show(text))), [("", show(text))] * 2
    for runs in (read_notebook(once), read(tmp_path / "a.log", show(text))):
        assert [[epoch.correct for epoch in run.epochs] for run in runs] == [RIGHT]
    other = show(text, [right - 20 for right in RIGHT])
    runs = read_notebook(notebook(tmp_path / "b.ipynb", *twice[:1], ("", other)))
    assert [len(run.epochs) for run in runs] == [4, 4]
    assert [len(run.epochs) for run in read(tmp_path / "b.log", show(text) + "\n" + other)] == [
        4,
        4,
    ]
    with pytest.raises(DataError):
        parse_log(show(text) + other)


@pytest.mark.parametrize("text", SHARES)
def test_per_cent_stays_per_cent(tmp_path, text):
    (run,) = read(tmp_path / "a.log", show(text))
    assert [epoch.accuracy for epoch in run.epochs] == [95.12, 97.04, 98.01, 98.48]
    assert {(epoch.correct, epoch.images) for epoch in run.epochs} == {(None, None)}
    with pytest.raises(DataError, match=r"line \d: not a whole test line"):
        _ = run.history


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (show("EPOCH: {0}\n" + BAR + TEST), 4 * 4 + 3),
        (show(BAR.replace("46", "93") + TEST), 13 - 1 + 2),
        (show(BAR + COUNTED[6].replace("0000", "000"), [951, 970]), 8),
        (show(BAR + TEST) + STOPPED + "0%|  | 0/469 [00:00<?, ?it/s]\n", 16),
        (show(BAR + TEST) + STOPPED + "KeyboardInterrupt\n", 16),
        (show(BAR + TEST, [9861, 9901, 9938]), 11),
    ],
)
def test_more_than_one_run_is_never_one(tmp_path, before, line):
    text = before + show("EPOCH: {0}\n" * ("EPOCH" in before) + BAR + TEST, [9851, 9860])
    with pytest.raises(DataError, match=rf"^line {line}: another run"):
        parse_log(text)
    assert len(read(tmp_path / "a.txt", text)) == 2


def test_a_history_where_all_is_there(tmp_path):
    path = notebook(tmp_path / "a.ipynb", ("", format_log(logged_run())), ("", show(TEST)))
    whole, bare = read_notebook(path)
    assert whole.history == logged_run()
    with pytest.raises(
        DataError, match=r"cell 2, line 1: a 'Test set' line without the progress bar"
    ):
        _ = bare.history
    with pytest.raises(DataError, match=r"line 1: this is a notebook.*read_notebook"):
        parse_log(path)


def test_runs_over_cells_and_tests_after_them(tmp_path):
    """A run may go on in the next cell; a stopped run or a later test is not the last whole run."""
    text = "EPOCH: {0}\n" + BAR + TEST
    more = text.format(5, 9850, 55, 98.5)
    stopped = show(text, [9500, 9600]) + STOPPED
    cells = STOPPED, show(text), more, stopped, more.replace("EPOCH", "x").split("\n", 2)[2]
    runs = read_notebook(notebook(tmp_path / "a.ipynb", *(("", cell) for cell in cells)))
    assert [(len(run.epochs), bool(run.epochs[-1].stop)) for run in runs] == [(5, False), (2, True)]
    with pytest.raises(DataError, match="cell 4, line 9: the log is cut short at batch 42 of 469"):
        _ = runs[1].history
    lost = "Streaming output truncated to the last 5000 lines.\n" + show(BAR + TEST)
    (run,) = read_notebook(notebook(tmp_path / "lost.ipynb", ("", lost)))
    with pytest.raises(DataError, match="cell 1, line 1: Colab kept only the output's end"):
        _ = run.history
    cells = show(BAR + TEST), TEST.format(4, 9850, 55, 98.5)
    (run,) = read_notebook(notebook(tmp_path / "b.ipynb", *(("", cell) for cell in cells)))
    assert len(run.epochs) == 4


def test_old_notebooks_and_strange_outputs(tmp_path):
    cell = {"cell_type": "code", "input": ["x"], "prompt_number": 1}
    shown = [{"output_type": "pyout", "text": show(TEST)}, {"output_type": "pyerr", "ename": "E"}]
    shown += [{"output_type": "display_data", "data": {"text/html": "<b>Test set</b>"}}]
    sheets = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "heading"}]}]}
    sheets["worksheets"].append({"cells": [cell | {"outputs": shown}]})
    (run,) = read(tmp_path / "old.ipynb", json.dumps(sheets))
    assert run.epochs[0].line == "cell 2, line 1"


DATA = """\
!pip install torchsummary
train_set = datasets.MNIST('data', download=False)
test_set = datasets.MNIST('data', train={0})
train_loader = torch.utils.data.DataLoader(train_set, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_set)
print(datasets.MNIST('data', train=True).data.float().mean())
"""
NET, LOOP = "class Net(nn.Module):\n    pass", "for e in range(4):\n    test(model, device, {0})"
TABLE = "Total params: 7,998\n"


@pytest.mark.parametrize(
    ("code", "flag"),
    [
        ("test(model, train_loader)\ntest(model, test_loader)", ""),  # both, and both shown
        (
            "test_loader = train_loader\nevaluate(model, test_loader)",
            "evaluate(model, test_loader)",
        ),
        ("a, b = train_loader, test_loader\nself.validate(a, model)", "self.validate(a, model)"),
        ("t = DataLoader(MNIST('.', **options))\ntest(model, t)", ""),
        ("train_set, held_out = random_split(train_set, [5, 1])\ntest(DataLoader(held_out))", ""),
        ("test(\n    model,  # (\n    train_loader\n)\nplots[0] = train_loader", "test( model, #"),
        ("held_out = DataLoader(train_set, sampler=rest)\ntest(model, held_out)", ""),
        ("test(model, train_loader", ""),  # not Python
        ("run_tests(model, train_loader, test_loader)", ""),
        ("train_and_test(model, train_loader)", ""),
        ("test = test_loader\ntest(model, train_loader)", "test(model, train_loader)"),
    ],
)
def test_leaks_are_followed_through_variables(tmp_path, code, flag):
    path = notebook(tmp_path / "a.ipynb", (DATA.format(False), ""), (code, show(TEST)))
    (run,), _, _, cells = read_submission(path)
    found = leaks(cells, run)
    assert [text.partition("data: cell 2: ")[2][: len(flag)] for text in found] == [flag] * bool(
        flag
    )


@pytest.mark.parametrize(
    ("shown", "size"),
    [
        ("\x1b[1m Total params: \x1b[0m\x1b[38;5;34m7,998\x1b[0m (31.24 KB)", 7998),
        (TABLE + "Total parameters: 7998", 7998),
        (TABLE + "Total params: 9,000", "?"),
        ("Total params: 0.25M", "?"),
        ("Total params: 24K", "?"),
    ],
)
def test_parameters_in_other_formats(tmp_path, shown, size):
    path = notebook(tmp_path / "a.ipynb", ("", shown), ("", show(TEST)))
    (run,), _, _, cells = read_submission(path)
    assert parameters(cells, run)[0] == size


def test_a_class(tmp_path, capsys, monkeypatch):
    """One row each; every flag with its evidence; a broken file costs its row."""
    folder = tmp_path / "class"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    start = [(DATA.format(False), ""), (NET, ""), ("summary(model)", TABLE)]
    good, high = show(TEST), show(TEST, [9900, 9971, 9944, 9940])
    loop = LOOP.format("test_loader")
    notebook(folder / "good.ipynb", *start, (loop, good), (loop, high))
    notebook(folder / "leak.ipynb", *start, (LOOP.format("train_loader"), show(TEST, [9700] * 4)))
    leaky = show(TEST.replace("1000", "6000"), [59_000, 59_500, 59_600]).replace("(", "(9")
    notebook(
        folder / "through.ipynb", (DATA.format(True), ""), *start[1:], (NET, ""), (loop, leaky)
    )
    notebook(folder / "cifar.ipynb", (DATA.format(True).replace("MNIST", "CIFAR10"), show(TEST)))
    notebook(folder / ".ipynb_checkpoints" / "good.ipynb", (loop, good))
    (folder / "copy\n.log").write_text(good, "utf-8")
    for name, content in (("broken.ipynb", b"{"), ("deep.ipynb", b"[" * 10**5), ("x.txt", b"\xff")):
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.log")
    (folder / "=cmd.md").write_text(show(COUNTED[8]), "utf-8")
    (folder / "anna").mkdir()
    for name, content in (("EVA4_Assignment4.log", high), ("README.md", high), ("net.pdf", "")):
        (folder / "anna" / name).write_text(content.replace("9900", "9800"), "utf-8")
    for name, last in (("round", 9940), ("below", 9850)):
        (folder / f"{name}.log").write_text(show(ROUNDED, [9510, 9700, 9800, last]), "utf-8")
    for name in ("carl", "dora"):
        notebook(folder / "anna" / f"{name}.ipynb", ("", show(TEST, [9111, 9222, 9333])))
    monkeypatch.chdir(folder)
    main([".", "--csv", str(tmp_path / "out.csv"), "--parameters", "8000"])
    done = capsys.readouterr()
    assert done.err == ""
    head, _, *lines = done.out.splitlines()
    assert max(map(len, (head, *lines[:8]))) <= 120
    assert "anna/EVA4_A…nment4.log" in done.out
    assert lines[-1] == "not read: 1 .pdf"
    with open(tmp_path / "out.csv", newline="", encoding="utf-8-sig") as file:
        rows = {(os.path.basename(row["file"]), row["run"]): row for row in csv.DictReader(file)}
    assert len(rows) == 16
    assert rows["EVA4_Assignment4.log", "1"]["flags"] == rows["README.md", "1"]["flags"]
    assert "same" not in rows["README.md", "1"]["flags"]
    assert "too few decimals" in rows["round.log", "1"]["flags"]
    assert rows["round.log", "1"]["ends"] == "?"
    assert rows["below.log", "1"]["ends"] == "NO"
    assert "the same 3 counts as anna/dora" in rows["carl.ipynb", "1"]["flags"]
    row = rows["good.ipynb", "2"]
    expected = {"runs": "2", "parameters": "7998", "epochs": "4", "best": "9971", "best_epoch": "2"}
    expected |= {"last": "9940", "test_images": "10000", "mean_of_last_five": "99.3875"}
    assert row | expected | {"within_budget": "yes", "touches": "yes", "ends": "NO"} == row
    assert row["flags"].endswith("line 3: 99.71% is hardly possible")
    assert "the same 4 counts as" in rows["good.ipynb", "1"]["flags"]
    assert "cell 4: test(model, device, train_loader)" in rows["leak.ipynb", "1"]["flags"]
    for flag in ("60,000 images", "cell 5: test(model, device, test_loader)", "cell 4: the class"):
        assert flag in rows["through.ipynb", "1"]["flags"]
    assert rows["through.ipynb", "1"]["touches"] == rows["cifar.ipynb", "1"]["touches"] == "?"
    assert "CIFAR10, not MNIST" in rows["cifar.ipynb", "1"]["unread"]
    assert "not a notebook" in rows["broken.ipynb", ""]["unread"]
    assert "'=cmd.md" in {file for file, _ in rows}
    with pytest.raises(SystemExit, match=r"no run to grade\nx\.txt: x\.txt is not a text"):
        main(["x.txt"])
    with pytest.raises(SystemExit, match=r"--csv must be FILE\.csv, got .*good\.IPYNB"):
        main(["--csv", "good.IPYNB", "x.txt"])
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "all.zip").touch()
    with pytest.raises(SystemExit, match=r"no run to grade\nnot read: 1 \.zip"):
        main([str(tmp_path / "zips")])


def graded(path, *cells):
    """The row of each run in a class of one notebook, as in the CSV file."""
    notebook(path / "class" / "a.ipynb", *cells)
    main([str(path / "class"), "--csv", str(path / "out.csv")])
    with open(path / "out.csv", newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


KERAS = "Epoch {0}/4\n469/469 - 9s - loss: 0.1 - val_accuracy: {4:.4f} - val_loss: 0.05\n"
FINAL = "Test accuracy: 99.46%\n"
NUMBERED = "Epoch {0}\n" + TEST
AGAIN, OTHER = TEST.format(2, 9704, 58, 97.04), TEST.format(2, 9700, 58, 97.0)


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        ([TABLE, "Epoch 60/60 loss 0.01\n", FINAL], {"epochs": "?", "within_budget": "?"}),
        ([TABLE, FINAL], {"within_budget": "?", "flags": "one test line does not tell"}),
        ([TABLE.replace("7,", "87,"), FINAL], {"within_budget": "NO"}),
        ([TABLE, show(NUMBERED.replace("{0}", "{0}5"))], {"epochs": "45", "within_budget": "NO"}),
        ([show(NUMBERED) + "Best was epoch 2\n" + AGAIN], {"epochs": "4", "last": "9848"}),
        ([show(NUMBERED) + "Epoch 4 took 9 s\n" + AGAIN], {"epochs": "4", "last": "9848"}),
        ([show(NUMBERED) + OTHER], {"epochs": "4", "last": "9848", "unread": "of a run, 97.00%"}),
        ([show(KERAS) + "KeyboardInterrupt"], {"ends": "?", "flags": "line 9: the run stops here"}),
        (
            [show(NUMBERED) + OTHER + TEST.format(2, 9710, 58, 97.1)],
            {"epochs": "4", "last": "9848"},
        ),
        (["Epoch 9\n" * 2 + show(TEST)], {"epochs": "9", "last": "9848"}),
        ([show(NUMBERED + "EMA " + OTHER)], {"epochs": "4", "best_epoch": "4", "last": "9848"}),
        ([show(NUMBERED.replace("{0}", "{0}5"), [9901, 9848])], {"best_epoch": "15"}),
        ([show(KERAS), FINAL], {"flags": "a validation set's", "unread": "a run, 99.46%"}),
        ([show(KERAS) + FINAL], {"epochs": "4", "unread": "line 9: a test line outside of a run"}),
        ([show(TEST, range(9700, 9720))], {"flags": "no epoch has a number: perhaps"}),
        ([show(TEST, [9936, 9937, 9938])], {"flags": "line 1: begins at 99.36%, as if trained"}),
    ],
)
def test_what_a_log_does_not_tell(tmp_path, cells, row):
    (tmp_path / "class").mkdir()
    (found,) = graded(tmp_path, *(("", cell) for cell in cells))
    assert all(text in found[name] for name, text in row.items()), found
    exact = {name: text for name, text in row.items() if name not in ("flags", "unread")}
    assert found | exact == found


def test_a_second_run_that_begins_where_the_first_ended(tmp_path):
    (tmp_path / "class").mkdir()
    first = [9600, 9850, 9900, 9910]
    runs = graded(tmp_path, ("", show(TEST, first)), ("", show(TEST, [9906, 9910, 9912])))
    assert ["as if trained" in run["flags"] for run in runs] == [False, True]
    runs = graded(tmp_path, ("", show(TEST, first)), ("", show(TEST, [9900, 9910, 9912])))
    assert ["as if trained" in run["flags"] for run in runs] == [False, False]


def test_a_score_in_a_bar_is_the_last_one_drawn_of_its_epoch(tmp_path):
    """Lightning draws a bar at 100% with the scores before, then with the new ones."""
    bar = "Epoch {0}: 100%|██| 469/469 [00:12<00:00, 38.1it/s, v_num=0, val_acc={1}]\r"
    scores = [0.9512, 0.9704, 0.9801, 0.9848]
    text = "".join(
        bar.format(n, old) + bar.format(n, scores[n]) for n, old in enumerate([0.1, *scores[:3]])
    )
    checked = text.replace(
        "]\rEpoch", "]\n\rValidation DataLoader 0: 100%|██| 79/79 [00:01<00:00]\n\r \rEpoch"
    )
    for shown in (text, checked, text + text.replace("0.97", "0.96")):
        *_, run = read(tmp_path / "a.log", shown)
        assert [e.accuracy for e in run.epochs if e.number != 1] == [95.12, 98.01, 98.48]
        assert run.epochs[1].accuracy == (97.04 if shown in (text, checked) else 96.04)


def test_tests_before_and_between_two_runs_are_no_epochs(tmp_path):
    text = show(NUMBERED) + OTHER
    before = TEST.format(0, 980, 230, 9.8)
    runs = read(tmp_path / "a.log", before + text + text.replace("9512", "9800"))
    assert [e.correct for e in runs[0].epochs] == RIGHT
    numbered = [e.correct for e in runs[1].epochs if e.number is not None]
    assert (numbered, runs[1].epochs[-1].correct) == ([9800, *RIGHT[1:]], RIGHT[-1])


def test_two_runs_that_are_as_good_at_one_epoch(tmp_path):
    text = "Epoch {0} val acc: {3:.1f}%\n"
    runs = read(tmp_path / "a.log", show(text) + show(text, [9400, 9704, 9790, 9848]))
    assert [[e.accuracy for e in run.epochs] for run in runs] == [
        [95.1, 97.0, 98.0, 98.5],
        [94.0, 97.0, 97.9, 98.5],
    ]


def test_the_table_of_another_model(tmp_path):
    (tmp_path / "class").mkdir()
    layers = "    def __init__(self):\n        self.one = nn.Conv2d(1, 8, 3)\n"
    classes = "".join(f"class {name}(nn.Module):\n{layers}" for name in ("Small", "Big"))
    classes += "class Lit(pl.LightningModule):\n    pass\n"
    cells = [(classes, ""), ("summary(Small())", TABLE), ("net = Big()", ""), ("", show(TEST))]
    (row,) = graded(tmp_path, *cells)
    assert row["parameters"] == "stale"
    assert "cell 3: a Big is made, after the table in cell 2" in row["flags"]
    for code in ("net = Small()", "lit = Lit(Small())", "net.load(Big)"):
        cells[2] = (code, "")
        (row,) = graded(tmp_path, *cells)
        assert row["parameters"] == "7998"


def test_names_that_would_look_alike_are_whole_and_no_letter_stops_it(tmp_path):
    folders = [tmp_path / f"group_2024_{n}" for n in "12"]
    for folder in folders:
        folder.mkdir()
        text = show(TEST, [9000 + int(folder.name[-1])]) + "loss=x batch_id=1 100%|█|"
        notebook(folder / "Assignment4.ipynb", ("", text))
    strange = json.dumps({"nbformat": 4, "cells": [{"cell_type": "code", "outputs": []}]})
    infinite = strange.replace("[]}", '[], "source": "", "execution_count": 1e999}')
    (folders[0] / "x.ipynb").write_text(infinite)
    command = [sys.executable, "-m", "mnist_lib.grade", str(tmp_path)]
    env = os.environ | {"PYTHONIOENCODING": "cp1252"}  # of Windows, which has no full block
    out = subprocess.run(command, env=env, capture_output=True, check=True).stdout.decode("cp1252")
    assert all(f"{folder.name}/Assignment4.ipynb " in out for folder in folders)
    assert "x.ipynb is not a notebook: OverflowError" in out
