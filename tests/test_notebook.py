"""The notebook, run as its users run it: papermill, nbval, other folders, Colab's single file."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient.exceptions import DeadKernelError

import mnist_lib
from mnist_lib.files import held

from .conftest import wait_for

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "mnist_99_44.ipynb"
QUICK = {"data_source": "sample", "epochs": 2, "train_images": 500, "batch_size": 50}
IGNORED = "nbval-ignore-output"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook, folder, **parameters):
    """Run a notebook with papermill; the executed notebook. Its file is `out.ipynb` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return papermill.execute_notebook(
        str(notebook),
        str(folder / "out.ipynb"),
        parameters={"run_dir": str(folder / "run")} | parameters,
        cwd=str(folder),
        progress_bar=False,
    )


def nbval(notebook):
    """Run a notebook against its own outputs, with the committed notebook's conftest beside it."""
    shutil.copy(NOTEBOOK.parent / "conftest.py", notebook.parent)
    words = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*words, notebook.name], cwd=notebook.parent, capture_output=True, text=True
    )


def stdout(notebook, name=None):
    """What a notebook's cells (one cell) printed."""
    return "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code" and name in (None, cell.id)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


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
    assert "wrote run/history.json" in text


@pytest.mark.parametrize(
    ("recipe", "net"),
    [
        ("fast", "Net, 13,322 parameters, looks at the middle 24 x 24 pixels"),
        ("steady", "Net, 13,322 parameters, looks at the middle 24 x 24 pixels"),
        ("sprint", "SprintNet, 15,066 parameters, looks at the middle 20 x 20 pixels"),
    ],
)
def test_it_runs_every_recipe(tmp_path, recipe, net):
    text = stdout(execute(NOTEBOOK, tmp_path, **(QUICK | {"recipe": recipe})))
    assert net in text
    assert "2 of 2" in text
    history = mnist_lib.load_history(tmp_path / "run")
    assert history.record["recipe"]["name"] == recipe


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
    for cell in ("train", "checks-hold", "print-verdict"):
        assert stdout(again, cell) == stdout(executed, cell)
    anew = execute(NOTEBOOK, tmp_path, **QUICK, run_dir=str(folder / "run"), resume=False)
    assert (folder / "run" / "history.json").read_text() != before
    assert stdout(anew, "train") == stdout(executed, "train")


TOOLS = NOTEBOOK.parent / "tools.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "papermill", str(NOTEBOOK), "out.ipynb"], "Aborted!"),
        ([str(TOOLS), "run"], "stopped; the run's folder keeps its whole epochs"),
    ],
)
def test_control_c_in_papermill(tmp_path, sample, words, said, start):
    """Both write what there is, leave no kernel behind, and go on when they are run again."""
    parameters = {"data_source": "sample", "train_images": 500, "recipe": "steady", "epochs": 40}
    parameters["run_dir"] = str(tmp_path / "run")
    settings = [word for item in parameters.items() for word in ("-p", *map(str, item))]
    command = [sys.executable, *words, *settings]
    process = start(command, cwd=tmp_path)
    wait_for(tmp_path / "run" / "checkpoint-3.pt")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert said in err
    assert process.returncode == 1
    done = len(mnist_lib.load_history(tmp_path / "run"))
    assert 2 <= done < 40
    with held(tmp_path / "run"):
        pass  # nobody trains there any more
    if "papermill" in words:
        stopped = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        assert "MNIST" in stdout(stopped, "load")
    few, recipe = sample.take(500), mnist_lib.get_recipe("steady", epochs=40)
    mnist_lib.set_seed(0)
    net = mnist_lib.make_net(recipe)
    history = mnist_lib.train(net, few, recipe, folder=tmp_path / "run", verbose=False)
    assert len(history) == 40
    mnist_lib.set_seed(0)
    whole = mnist_lib.train(mnist_lib.make_net(recipe), few, recipe, verbose=False)
    assert [epoch.test_loss for epoch in history] == [epoch.test_loss for epoch in whole]


def test_make_run_leaves_the_committed_parameters(notebook):
    """`make record` sets resume to False while it runs, by this text."""
    cell = next(cell for cell in notebook.cells if cell.id == "parameters")
    assert "resume: bool = True" in cell.source


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


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "ParameterError: epochs takes a whole number of at least 1, not 0"),
        (
            {"recipe": "best"},
            "ParameterError: recipe takes one of logged, fast, steady, sprint, not 'best'",
        ),
        ({"batch_size": 501}, "ParameterError: batch_size is 501, but there are only 500"),
        ({"seed": "x"}, "ParameterError: seed takes a whole number"),
        ({"device": "tpu"}, "ParameterError: device takes one of auto"),
        ({"data_source": "web"}, "ParameterError: data_source takes one of auto, mnist, sample"),
        ({"train_images": 0}, "ParameterError: train_images takes a whole number from 1 to 4000"),
        ({"run_dir": 2024}, "ParameterError: run_dir takes a folder, not 2024"),
        ({"data_dir": 5, "data_source": "mnist"}, "ParameterError: data_dir takes a folder, not 5"),
        (
            {"drive": True},
            "ParameterError: drive takes True in Colab only; elsewhere name a folder",
        ),
        ({"drive": 2}, "ParameterError: drive takes True or False, not 2"),
        ({"run_dir": "/proc/none"}, "RunError: /proc/none cannot be written"),
    ],
)
def test_bad_parameter_stops_with_one_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(NOTEBOOK, tmp_path, **(QUICK | parameters))
    (traceback,) = caught.value.traceback
    assert traceback.startswith(message)
    assert "\n" not in traceback
    assert not (tmp_path / "run").exists(), "nothing left behind"


def test_help_lists_every_parameter_with_type_and_text():
    result = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", str(NOTEBOOK)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    names = ["recipe", "epochs", "batch_size", "learning_rate", "seed", "device", "compiled"]
    names += ["data_dir", "data_source", "train_images", "run_dir", "drive", "resume"]
    shown = re.findall(r"(?m)^  (\w+): (?:str|int|float|bool) \(default .+?\)\s+\S", result.stdout)
    assert shown == names


def test_finds_the_checkout_from_any_folder_in_it():
    """With no library installed, from the notebook's folder and from one further down."""
    code = (
        "import json, sys, pathlib;"
        f"nb = json.loads(pathlib.Path({str(NOTEBOOK)!r}).read_text());"
        "cell = next(c for c in nb['cells'] if c['id'] == 'setup');"
        "exec(''.join(cell['source'])); import mnist_lib; print(mnist_lib.__file__)"
    )
    for cwd in (ROOT, NOTEBOOK.parent, ROOT / "notebooks" / "records"):
        result = run_without_library(code, cwd)
        assert result.stdout.strip() == str(ROOT / "mnist_lib" / "__init__.py"), result.stderr


def test_outside_a_checkout_it_says_what_to_do(tmp_path, notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.id in ("setup", "imports"))
    result = run_without_library(source, tmp_path)
    assert result.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: No module named 'mnist_lib': start this notebook in the project's "
        "checkout, or install that with pip"
    )


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
            assert len(cell.source.splitlines()) <= 18, cell.id
            assert "def " not in cell.source, "functions live in the library"


def test_ignored_cells_are_followed_by_a_compared_one_with_output(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ignored = [at for at, cell in enumerate(code) if IGNORED in cell.metadata.get("tags", [])]
    assert {code[at].id for at in ignored} >= {"load", "train", "print-verdict"}
    for at in ignored:
        following = [cell for cell in code[at + 1 : at + 3] if cell.outputs]
        assert IGNORED not in following[0].metadata.get("tags", [])


def test_committed_record_is_the_committed_notebooks(notebook):
    from mnist_lib import load_history, parse_log

    history = load_history(NOTEBOOK.parent / "records" / "logged-seed0")
    cell = next(cell for cell in notebook.cells if cell.id == "train")
    printed = parse_log("".join(output.text for output in cell.outputs))
    assert [epoch.correct for epoch in printed] == [epoch.correct for epoch in history]
    for shown, kept in zip(printed, history, strict=True):
        assert shown.last_batch_loss == kept.last_batch_loss
        assert shown.test_loss == pytest.approx(kept.test_loss, abs=5e-5)
    assert history.source == "mnist"
    assert history.record["train_images"] == 60_000


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(NOTEBOOK.parent))
    import tools

    yield tools
    sys.path.remove(str(NOTEBOOK.parent))


def test_make_runs_command_is_live_and_refuses_in_one_line(tmp_path, tools, capfd):
    target = tmp_path / "runs" / "out.ipynb"
    # The run's folder is the one that papermill writes to: neither may sweep the other's files.
    words = ["-p", "run_dir", str(target.parent), "-y", str(QUICK)]
    tools.run(target, words)
    shown = capfd.readouterr().out
    assert "loss=" in shown
    assert "Verdict on the SAMPLE" in shown
    before = target.read_bytes()
    for bad, message in (
        (["-p", "epochs", "0"], "ParameterError: epochs takes a whole number of at least 1, not 0"),
        (["--no-such-option"], "papermill: No such option"),
    ):
        with pytest.raises(SystemExit) as caught:
            tools.run(target, [*words, *bad])
        assert str(caught.value.code).startswith(message)
        assert "\n" not in caught.value.code
    assert target.read_bytes() == before
    assert not list(target.parent.glob(".notebook-*"))


def test_a_killed_kernel_is_one_sentence(tmp_path, tools, monkeypatch):
    def killed(*_, **__):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(tools.papermill_command, "main", killed)
    with pytest.raises(SystemExit, match=r"the notebook's process was killed, .*: run again"):
        tools.run(tmp_path / "out.ipynb", [])


def test_record_takes_no_old_run(tmp_path, tools, monkeypatch):
    """Where the sample took MNIST's place, the run of an earlier day is not the notebook's."""

    class Client:
        def __init__(self, *_, **__):
            pass

        def execute(self):
            pass

    records = tmp_path / "records"
    for name, value in (("ROOT", tmp_path), ("RECORDS", records), ("NotebookClient", Client)):
        monkeypatch.setattr(tools, name, value)
    monkeypatch.delenv("MNIST_RUNS", raising=False)  # which it takes out of the environment
    old = tmp_path / "runs" / "logged-seed0"
    old.mkdir(parents=True)
    (old / "history.json").write_text("of an earlier day")
    committed = NOTEBOOK.read_bytes()
    with pytest.raises(FileNotFoundError):
        tools.record()
    assert NOTEBOOK.read_bytes() == committed
    assert not records.exists()


def test_single_file_runs_in_an_empty_folder(tmp_path, tools):
    """As in Colab: no repository, no mnist_lib to import, a google.colab to be found."""
    single = tools.colab(tmp_path / "single.ipynb")
    empty = tmp_path / "empty"
    stand_in = tmp_path / "site" / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("")
    kernel = tmp_path / "site" / "sitecustomize.py"
    # Loaded by the kernel's interpreter at its start, before the editable install can be used.
    kernel.write_text(
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mnist_lib' and not any(p.endswith('.whl') for p in sys.path):\n"
        "            raise ModuleNotFoundError('mnist_lib is hidden')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import google.colab\n"
    )
    environment = os.environ | {"PYTHONPATH": str(kernel.parent)}
    blind = subprocess.run(
        [sys.executable, "-c", "import mnist_lib"], env=environment, cwd=tmp_path
    )
    assert blind.returncode != 0, "the stand-in hides the library"
    empty.mkdir()
    words = [sys.executable, "-m", "papermill", str(single), "out.ipynb", "--no-progress-bar"]
    for name, value in QUICK.items():
        words += ["-p", name, str(value)]
    result = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    executed = nbformat.read(empty / "out.ipynb", as_version=4)
    assert "Verdict on the SAMPLE" in stdout(executed)
    assert (empty / "runs").is_dir()


def test_single_file_carries_no_outputs(tmp_path, tools):
    single = nbformat.read(tools.colab(tmp_path / "single.ipynb"), as_version=4)
    assert all(not cell.outputs for cell in single.cells if cell.cell_type == "code")
    assert single.metadata.accelerator == "GPU"


def test_links_go_from_one_place_to_readme_and_notebook(tmp_path, tools):
    pyproject = tmp_path / "pyproject.toml"
    address = "https://github.com/somebody/mnist"
    pyproject.write_text(f'[project]\n[project.urls]\nRepository = "{address}.git"\n')
    url = tools.project_url(pyproject)
    assert url == address
    readme, copy = tmp_path / "README.md", tmp_path / "mnist_99_44.ipynb"
    shutil.copy(ROOT / "README.md", readme)
    shutil.copy(NOTEBOOK, copy)
    tools.links(url, readme, copy)
    assert f'REPOSITORY = "{address}"' in nbformat.read(copy, 4).cells[1].source
    badge = "colab.research.google.com/github/somebody/mnist/blob/main/notebooks/mnist_99_44.ipynb"
    assert badge in readme.read_text()
    tools.links("", readme, copy)
    assert readme.read_text() == (ROOT / "README.md").read_text() or tools.project_url()


def test_committed_links_are_the_projects(notebook, tools):
    url = tools.project_url()
    assert f'REPOSITORY = "{url}"' in notebook.cells[1].source
    assert tools.colab_line(url) in (ROOT / "README.md").read_text(encoding="utf-8")
