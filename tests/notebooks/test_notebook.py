"""The notebook, run as its users run it: by `make run`, papermill, nbval, and in other folders."""

import copy
import dataclasses
import os
import re
import shutil
import subprocess
import sys

import nbformat
import papermill
import pytest
import torch
import torch.nn.functional as F
from papermill.cli import papermill as papermill_command

import mnist_lib
from mnist_lib import parse_log
from mnist_lib.nets import NETS
from mnist_lib.runs.folder import PRETRAINED
from tests.figures.test_layers import Shaped
from tests.notebooks.running import (
    ENVIRONMENT,
    NOTEBOOK,
    QUICK,
    RECORDS,
    ROOT,
    TOOLS,
    execute,
    execute_here,
    nbval,
    stdout,
)

INSIDE, IGNORED = NOTEBOOK.with_name("inside_the_net.ipynb"), "nbval-ignore-output"
# Cells that show the same whatever is trained.
SAME = ("luck", "torchsummary", "receptive-fields", "band", "luck-table", "ideas")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """What `make run` did, in a folder with no checkout above it, and the executed notebook."""
    folder = tmp_path_factory.mktemp("quick")
    # resume False: so that whoever runs it again trains again
    parameters = str(QUICK | {"run_dir": str(folder / "run"), "resume": False})
    words = [sys.executable, TOOLS, "run", "-y", parameters]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    executed = (folder / "run" / NOTEBOOK.name).rename(folder / NOTEBOOK.name)
    return done, folder, nbformat.read(executed, as_version=4)


def test_make_run_is_live_and_leaves_its_files(quick):
    done, folder, executed = quick
    assert done.stderr.startswith(b"\repoch 1 of 2:   0%|"), "no alarm before it"
    assert b"epoch 2 of 2 loss=" in done.stderr
    for text in (done.stdout.decode(), stdout(executed)):
        assert "2 of 2" in text
        assert "Verdict on the SAMPLE of MNIST (500 to train, 1,000 to test)" in text
    files = "checkpoint-1.pt checkpoint-2.pt curves.png history.json weights.safetensors"
    assert sorted(path.name for path in (folder / "run").glob("[!.]*")) == files.split()


@pytest.mark.parametrize("recipe", [name for name in mnist_lib.RECIPES if name != "assignment"])
def test_it_runs_every_recipe(notebook, tmp_path, recipe):
    parameters = QUICK | {"recipe": recipe, "run_dir": str(tmp_path / "run")}
    text = "".join(execute_here(notebook, skip=SAME, **parameters).values())
    assert "2 of 2" in text
    history = mnist_lib.load_history(tmp_path / "run")
    assert history.record["recipe"]["name"] == recipe
    assert f"{history.record['parameters']:,}" in text
    assert "cannot be shown" not in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shaped(lambda net, x: net.linear((x + net.one(net.one(x))).mean((2, 3))).sigmoid()),
        lambda: Shaped(lambda net, x: F.linear((x > 0).float().mean((2, 3)), net.linear.weight)),
        lambda: torch.jit.script(mnist_lib.Net()),
    ],
    ids=["a layer twice, bounded", "functional", "scripted"],
)
def test_any_net_ends_a_run(notebook, tmp_path, make):
    """What cannot be shown of it is said in a sentence, in the notebook of its inside too."""
    few = QUICK | {"run_dir": str(tmp_path / "run"), "make_net": lambda recipe: make()}
    some = {"data_source": "sample", "pretrained": lambda name: make()}
    for read, cell, given in (
        (copy.deepcopy(notebook), "net", few),
        (nbformat.read(INSIDE, as_version=4), "load", some),
    ):
        (own,) = (c for c in read.cells if c.id == cell)
        own.source = re.sub(r"mnist_lib\.(make_net|pretrained)", r"\1", own.source)
        text = execute_here(read, "summary", skip=(*SAME, "robustness", "shared"), **given)
        assert "The layer table cannot be shown for this net: " in "".join(text.values())
        assert text["draw"].startswith("The page to draw on cannot be shown for this net: net must")


@pytest.mark.usefixtures("my_nets")
def test_it_runs_a_net_and_a_recipe_of_your_own(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_RUNS", str(tmp_path / "runs"))
    given = QUICK | {"net": "my_nets:TinyNet", "changes": "rotation=5 momentum=0.5"}
    printed = execute_here(notebook, skip=SAME, **given)
    assert "7,850" in printed["verdict"]
    (folder,) = (tmp_path / "runs").iterdir()
    for part in ("my_nets.TinyNet", "rotation5", "momentum0.5"):
        assert part in folder.name


@pytest.mark.parametrize("weights", ["fast", "run"])
def test_the_inside_of_any_net_is_shown(tmp_path, weights):
    """Of the library's weights and of a run's folder; no label of the sample is doubted."""
    recipe = mnist_lib.get_recipe("small", net="p998")
    history = mnist_lib.load_history(PRETRAINED / "steady")
    record = history.record | {"recipe": dataclasses.asdict(recipe), "parameters": 998}
    history = dataclasses.replace(history, record=record)
    mnist_lib.save_run(tmp_path / "run", history, mnist_lib.make_net(recipe))
    given = {"weights": str(tmp_path / "run") if weights == "run" else weights, "digit": 3}
    # Of the library's weights, only the cells that do not show the same of every net.
    last = None if weights == "run" else "own-mistakes"
    given |= {"skip": ("robustness",), "data_source": "sample"}  # that cell takes 20 s
    notebook = nbformat.read(INSIDE, as_version=4)
    text = "".join(execute_here(notebook, last, **given).values())
    assert "SAMPLE of MNIST" in text
    assert "0 of them have one of the 0 doubtful labels" in text
    assert "cannot be shown" not in text


def test_second_run_prints_the_same_to_the_digit(quick):
    """nbval ignores no cell here, but only what the progress bar writes to stderr.

    A second notebook has one digit changed: it shows that the comparison can fail.
    """
    _, folder, executed = quick
    for cell in executed.cells:
        if IGNORED in cell.metadata.get("tags", []):
            cell.metadata.tags.remove(IGNORED)
    nbformat.write(executed, folder / "strict.ipynb")
    bent = nbformat.v4.new_notebook()
    for printed in (883, 882):
        output = nbformat.v4.new_output("stream", name="stdout", text="Accuracy: 883/1000\n")
        source = f"print('Accuracy: {printed}/1000')"
        bent.cells.append(nbformat.v4.new_code_cell(source, execution_count=1, outputs=[output]))
    nbformat.write(bent, folder / "bent.ipynb")
    before = (folder / "run" / "history.json").read_text()
    result = nbval(folder / "strict.ipynb", folder / "bent.ipynb")
    code_cells = sum(cell.cell_type == "code" for cell in executed.cells)
    assert f"1 failed, {code_cells + 1} passed" in result.stdout, result.stdout[-3000:]
    assert "bent::ipynb::Cell 1 FAILED" in result.stdout
    assert (folder / "run" / "history.json").read_text() != before, "other seconds: trained anew"


def test_a_finished_run_is_shown_again(notebook, quick):
    _, folder, executed = quick
    before = (folder / "run" / "history.json").read_text()
    again = execute_here(notebook, skip=SAME, **QUICK, run_dir=str(folder / "run"))
    assert (folder / "run" / "history.json").read_text() == before
    for cell in ("train", "checks", "verdict"):
        assert again[cell] == stdout(executed, cell)


BAD = [
    ({"epochs": 0}, "ParameterError: epochs must be a whole number of at least 1, got 0"),
    ({"net": "p997"}, "ParameterError: net must be one of assignment, sprint, "),
    ({"net": "no_nets:Net"}, "ParameterError: net no_nets:Net, imported in "),
    (
        {"changes": "rotaton=1"},
        "ParameterError: a recipe has no field 'rotaton'; did you mean 'rotation'",
    ),
    ({"changes": "epochs=3"}, "ParameterError: epochs is 3 in the changes, 2 beside them"),
    ({"recipe": "best"}, "ParameterError: recipe must be one of assignment, steady, fast, "),
    ({"batch_size": 501}, "ParameterError: batch_size must be at most 500"),
    ({"seed": "x"}, "ParameterError: seed must be a whole number"),
    ({"threads": 0}, "ParameterError: threads must be a whole number from 1 to 256, got 0"),
    ({"resume": "no"}, "ParameterError: resume must be True or False, got 'no'"),
    ({"drive": True}, "ParameterError: drive is True, but this is not Colab"),
    ({"device": "tpu"}, "ParameterError: device must be one of auto"),
    ({"data_source": "web"}, "ParameterError: data_source must be one of auto, mnist, sample"),
    ({"train_images": 0}, "ParameterError: train_images must be a whole number from 1 to 4000"),
    ({"run_dir": 2024}, "ParameterError: run_dir must be a path, got 2024"),
    ({"data_dir": 5, "data_source": "mnist"}, "ParameterError: data_dir must be a path, got 5"),
    ({"run_dir": "/proc/none"}, "RunError: /proc/none cannot be written"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_bad_parameter_is_refused_before_anything_is_done(tmp_path, notebook, parameters, message):
    given = QUICK | {"run_dir": str(tmp_path / "run")} | parameters
    with pytest.raises(mnist_lib.MnistLibError) as caught:
        execute_here(notebook, last="load", **given)
    assert f"{type(caught.value).__name__}: {caught.value}".startswith(message)
    assert not (tmp_path / "run").exists(), "nothing left behind"


def test_bad_parameter_stops_with_one_sentence(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(NOTEBOOK, tmp_path, **(QUICK | BAD[0][0]))
    assert caught.value.traceback == [BAD[0][1]]
    assert f"{caught.value.ename}: {caught.value.evalue}" == BAD[0][1]


def test_help_lists_every_parameter_with_type_and_text(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        papermill_command.main(["--help-notebook", str(NOTEBOOK)], standalone_mode=False)
    names = [
        "recipe",
        "net",
        "changes",
        "epochs",
        "batch_size",
        "learning_rate",
        "seed",
        "device",
        "threads",
    ]
    names += ["data_dir", "data_source", "train_images", "run_dir", "drive", "resume"]
    shown = r"(?m)^  (\w+): (?:str|int|float|bool) \(default .+?\)\s+\S"
    assert re.findall(shown, capsys.readouterr().out) == names


def test_the_form_offers_every_recipe(notebook):
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    offered = {"recipe": list(mnist_lib.RECIPES), "net": [n for n in NETS if ":" not in n]}
    for name, choices in offered.items():
        (form,) = re.findall(rf"(?m)^{name}: .* @param \[(.+)\]", cell.source)
        assert re.findall(r"\w+", form) == choices


def set_up(path, names, *cases, repository=""):
    """Run a notebook's setup in Colab, with no library installed, and print the modules' files.

    Each case is a folder to run it in, and then those to import from.
    """
    cells = nbformat.read(path, as_version=4).cells
    setup = next(cell.source for cell in cells if cell.id == "setup")
    setup = setup.replace('repository = ""', f"repository = {str(repository)!r}")
    code = (
        "import os, sys\n"
        "sys.modules['google.colab'] = sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"path = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"
        f"for folder, *sites in {[[str(place) for place in case] for case in cases]}:\n"
        "    os.chdir(folder)\n"
        "    sys.path[:] = [*path, *sites]\n"
        f"    exec({setup!r}, {{}})\n"
        f"    print(*(sys.modules.pop(name).__file__ for name in {names}))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("path", "figures"), [(NOTEBOOK, "plots"), (INSIDE, "inside")], ids=["main", "inside"]
)
def test_the_library_is_found_from_any_folder_of_the_checkout(tmp_path, path, figures):
    """In a folder that is not of a checkout, it says what to do."""
    cases = [[folder] for folder in (ROOT, NOTEBOOK.parent, RECORDS, tmp_path)]
    (tmp_path / "old" / "mnist_lib").mkdir(parents=True)  # installed, and without the figures
    (tmp_path / "old" / "mnist_lib" / "__init__.py").touch()
    cases[:0] = [[ROOT, tmp_path / "old"], [tmp_path, ROOT]]
    result = set_up(path, ["mnist_lib", figures], *cases)
    there = f"{ROOT / 'mnist_lib' / '__init__.py'} {NOTEBOOK.with_name(f'{figures}.py')}"
    assert result.stdout.splitlines() == (len(cases) - 1) * [there], result.stderr
    said = f"ModuleNotFoundError: No module named {figures!r}: start this notebook"
    assert result.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(
    ("path", "figures"), [(NOTEBOOK, "plots"), (INSIDE, "inside")], ids=["main", "inside"]
)
def test_in_colab_a_notebook_clones_the_repository(tmp_path, path, figures):
    """Once: a restarted session finds the clone, and the runs in it."""
    repository, empty = tmp_path / "repository", tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(ROOT / "mnist_lib", repository / "mnist_lib")
    (repository / "notebooks").mkdir()
    for name in ("plots.py", "shown.py", "inside.py"):
        shutil.copy(NOTEBOOK.with_name(name), repository / "notebooks")
    for words in ("init --quiet", "add .", "-c user.name=x -c user.email=x commit --quiet -m x"):
        subprocess.run(["git", *words.split()], cwd=repository, check=True)
    result = set_up(path, ["mnist_lib", figures], [empty], [empty], repository=repository)
    (clone,) = empty.iterdir()
    there = f"{clone / 'mnist_lib' / '__init__.py'} {clone / 'notebooks' / figures}.py"
    assert result.stdout.splitlines() == 2 * [there], result.stderr


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
    for shown, kept in zip(printed, history, strict=True):
        assert (shown.correct, shown.last_batch_loss) == (kept.correct, kept.last_batch_loss)
        assert shown.test_loss == pytest.approx(kept.test_loss, abs=5e-5)
