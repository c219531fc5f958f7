"""The notebook, run as its users run it: papermill, nbval, other folders, Colab's single file."""

import dataclasses
import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

import mnist_lib
from mnist_lib import parse_log

from .running import IGNORED, INSIDE, NOTEBOOK, QUICK, RECORDS, ROOT, execute, nbval, stdout


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The notebook as papermill executed it, in a folder with no checkout above it."""
    folder = tmp_path_factory.mktemp("quick")
    # resume False: so that whoever runs it again trains again
    return folder, execute(NOTEBOOK, folder, **QUICK, resume=False)


def test_papermill_runs_it_and_it_leaves_its_files(quick):
    folder, executed = quick
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        ".lock",
        "checkpoint-1.pt",
        "checkpoint-2.pt",
        "curves.png",
        "history.json",
        "weights.safetensors",
    ]
    text = stdout(executed)
    assert "2 of 2" in text
    assert "Verdict on the SAMPLE (500 to train, 1,000 to test)" in text


@pytest.mark.parametrize("recipe", [name for name in mnist_lib.RECIPES if name != "assignment"])
def test_it_runs_every_recipe(tmp_path, recipe):
    text = stdout(execute(NOTEBOOK, tmp_path, **(QUICK | {"recipe": recipe})))
    assert "2 of 2" in text
    history = mnist_lib.load_history(tmp_path / "run")
    assert history.record["recipe"]["name"] == recipe
    assert f"{history.record['parameters']:,}" in text


@pytest.mark.parametrize("weights", ["fast", "run"])
def test_the_inside_of_any_net_is_shown(tmp_path, weights):
    """Of the library's weights and of a run's folder; no label of the sample is doubted."""
    if weights == "run":
        recipe = mnist_lib.get_recipe("small", net="p998")
        history = mnist_lib.load_history(mnist_lib.run.PRETRAINED / "steady")
        record = history.record | {"recipe": dataclasses.asdict(recipe), "parameters": 998}
        history = dataclasses.replace(history, record=record)
        mnist_lib.save_run(tmp_path / "run", history, mnist_lib.make_net(recipe))
    given = {"weights": weights, "data_source": "sample", "digit": 3}
    text = stdout(execute(INSIDE, tmp_path, **given))
    assert "SAMPLE of MNIST" in text
    assert "0 of them have one of the 0 doubtful labels" in text


def test_second_run_prints_the_same_to_the_digit(quick):
    """nbval with no cell ignored but for what it says of the progress bar on stderr."""
    folder, executed = quick
    for cell in executed.cells:
        if IGNORED in cell.metadata.get("tags", []):
            cell.metadata.tags.remove(IGNORED)
    nbformat.write(executed, folder / "strict.ipynb")
    before = (folder / "run" / "history.json").read_text()
    result = nbval(folder / "strict.ipynb")
    assert result.returncode == 0, result.stdout[-3000:]
    code_cells = sum(cell.cell_type == "code" for cell in executed.cells)
    assert f"{code_cells} passed" in result.stdout
    assert (folder / "run" / "history.json").read_text() != before, "other seconds: trained anew"


def test_a_finished_run_is_shown_again(quick, tmp_path):
    folder, executed = quick
    before = (folder / "run" / "history.json").read_text()
    again = execute(NOTEBOOK, tmp_path, **QUICK, run_dir=str(folder / "run"))
    assert (folder / "run" / "history.json").read_text() == before
    for cell in ("train", "checks", "verdict"):
        assert stdout(again, cell) == stdout(executed, cell)


@pytest.mark.parametrize(("printed", "code"), [(883, 0), (882, 1)])
def test_nbval_notices_a_changed_digit(tmp_path, printed, code):
    """The comparison above can fail."""
    source = f"print('Accuracy: {printed}/1000')"
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=[])
    cell.outputs.append(
        nbformat.v4.new_output("stream", name="stdout", text="Accuracy: 883/1000\n")
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "bent.ipynb")
    assert nbval(tmp_path / "bent.ipynb").returncode == code


BAD = [
    ({"epochs": 0}, "ParameterError: epochs must be a whole number of at least 1, got 0"),
    ({"recipe": "best"}, "ParameterError: recipe must be one of assignment, steady, fast, "),
    ({"batch_size": 501}, "ParameterError: batch_size is 501, but there are only 500"),
    ({"seed": "x"}, "ParameterError: seed must be a whole number"),
    ({"threads": 0}, "ParameterError: threads must be a whole number from 1 to 256, got 0"),
    ({"drive": True}, "ParameterError: drive is True, but this is not Colab"),
    ({"device": "tpu"}, "ParameterError: device must be one of auto"),
    ({"data_source": "web"}, "ParameterError: data_source must be one of auto, mnist, sample"),
    ({"train_images": 0}, "ParameterError: train_images must be a whole number from 1 to 4000"),
    ({"run_dir": 2024}, "ParameterError: run_dir must be a path, got 2024"),
    ({"data_dir": 5, "data_source": "mnist"}, "ParameterError: data_dir must be a path, got 5"),
    ({"run_dir": "/proc/none"}, "RunError: /proc/none cannot be written"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_bad_parameter_is_refused_before_anything_is_done(
    tmp_path, notebook, sample, monkeypatch, parameters, message
):
    """In this process, the notebook's cells up to the run's folder."""
    monkeypatch.setattr(mnist_lib.data, "load_sample", lambda: sample)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    names = [cell.id for cell in code]
    here = {}
    exec("\n".join(cell.source for cell in code[: names.index("choose")]), here)
    here |= QUICK | {"run_dir": str(tmp_path / "run")} | parameters
    rest = "\n".join(cell.source for cell in code[names.index("choose") : names.index("load") + 1])
    with pytest.raises(mnist_lib.MnistLibError) as caught:
        exec(rest, here)
    assert f"{type(caught.value).__name__}: {caught.value}".startswith(message)
    assert not (tmp_path / "run").exists(), "nothing left behind"


def test_bad_parameter_stops_with_one_sentence(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(NOTEBOOK, tmp_path, **(QUICK | BAD[0][0]))
    (traceback,) = caught.value.traceback
    assert traceback == BAD[0][1]


def test_help_lists_every_parameter_with_type_and_text():
    result = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", str(NOTEBOOK)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    names = ["recipe", "epochs", "batch_size", "learning_rate", "seed", "device", "threads"]
    names += ["data_dir", "data_source", "train_images", "run_dir", "drive", "resume"]
    shown = re.findall(r"(?m)^  (\w+): (?:str|int|float|bool) \(default .+?\)\s+\S", result.stdout)
    assert shown == names


def test_the_form_offers_every_recipe(notebook):
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    (form,) = re.findall(r"(?m)^recipe: .* @param \[(.+)\]", cell.source)
    assert re.findall(r"\w+", form) == list(mnist_lib.RECIPES)


def test_finds_the_checkout_from_any_folder_in_it(notebook):
    """With no library installed, from the notebook's folder and from one further down."""
    (setup,) = (cell.source for cell in notebook.cells if cell.id == "setup")
    folders = [str(folder) for folder in (ROOT, NOTEBOOK.parent, RECORDS)]
    code = (
        f"import os, sys\nfor folder in {folders}:\n"
        "    os.chdir(folder)\n"
        f"    exec({setup!r}, {{}})\n"
        "    print(sys.modules.pop('mnist_lib').__file__)\n"
        "    del sys.path[0]\n"
    )
    result = run_without_library(code, ROOT)
    there = str(ROOT / "mnist_lib" / "__init__.py")
    assert result.stdout.splitlines() == 3 * [there], result.stderr


def test_outside_a_checkout_it_says_what_to_do(tmp_path, notebook):
    (setup,) = (cell.source for cell in notebook.cells if cell.id == "setup")
    last = run_without_library(setup, tmp_path).stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: No module named 'mnist_lib': start this notebook")


def run_without_library(code, cwd):
    """Run code in this environment with our own library out of reach."""
    hide = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"sys.path[:] = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", hide + code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_committed_notebook_is_whole(notebook):
    """Executed from top to bottom, with outputs, for a GPU runtime, with no machine's paths."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.colab.gpuType == "T4"
    assert "widgets" not in notebook.metadata
    text = stdout(notebook)
    assert "60,000 training and 10,000 test images" in text
    assert text.count("Test set: Average loss") == 19
    raw = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/", raw)


def test_cells_are_small(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            folded = cell.metadata.get("cellView") == "form"
            assert len(cell.source.splitlines()) <= (35 if folded else 15), cell.id
            assert "def " not in cell.source, "functions live in the library"


def test_ignored_cells_are_followed_by_a_compared_one_with_output(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ignored = [at for at, cell in enumerate(code) if IGNORED in cell.metadata.get("tags", [])]
    assert {code[at].id for at in ignored} >= {"load", "train", "verdict"}
    for at in ignored:
        following = [cell for cell in code[at + 1 : at + 3] if cell.outputs]
        assert any(IGNORED not in cell.metadata.get("tags", []) for cell in following)


def test_committed_record_is_the_committed_notebooks(notebook):
    history = mnist_lib.load_history(RECORDS / "notebook.jsonl")
    cell = next(cell for cell in notebook.cells if cell.id == "train")
    printed = parse_log("".join(output.text for output in cell.outputs))
    assert [epoch.correct for epoch in printed] == [epoch.correct for epoch in history]
    for shown, kept in zip(printed, history, strict=True):
        assert shown.last_batch_loss == kept.last_batch_loss
        assert shown.test_loss == pytest.approx(kept.test_loss, abs=5e-5)
