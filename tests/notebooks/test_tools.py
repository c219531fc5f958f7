"""The notebooks' workshop: `make run`, Ctrl-C in it, `make record`, Colab's single file."""

import os
import re
import shutil
import signal
import subprocess
import sys

import nbformat
import pytest
import tools
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine
from papermill.exceptions import PapermillExecutionError

import mnist_lib
from mnist_lib import DataError
from mnist_lib.base.files import lock
from mnist_lib.history import save_history
from tests.conftest import wait_for
from tests.notebooks.running import ENVIRONMENT, NOTEBOOK, QUICK, ROOT, TOOLS, stdout
from tests.runs.killing import interrupt, once_there
from tests.test_history import make


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "papermill", str(NOTEBOOK), "out.ipynb"], "Aborted!"),
        ([str(TOOLS), "run"], "\nstopped; epochs 1 to "),
    ],
)
def test_control_c_in_papermill(tmp_path, sample, words, said, start):
    """Both write what there is, leave no kernel behind, and go on when they are run again."""
    parameters = {"data_source": "sample", "train_images": 500, "recipe": "faster", "epochs": 5000}
    parameters["run_dir"] = str(tmp_path / "run")
    process = start([sys.executable, *words, "-y", str(parameters)], cwd=tmp_path, env=ENVIRONMENT)
    wait_for(tmp_path / "run" / "checkpoint-3.pt")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert said in err
    assert "Traceback" not in err or "papermill" in words
    assert process.returncode == 1
    done = len(mnist_lib.load_history(tmp_path / "run"))
    assert 2 <= done < 5000
    with lock(tmp_path / "run"):
        pass  # nobody trains there any more
    if "papermill" in words:
        stopped = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        assert "CPU threads" in stdout(stopped, "load")
    few, recipe = sample.take(500), mnist_lib.get_recipe("faster", epochs=5000)
    for folder in (tmp_path / "run", tmp_path / "undisturbed"):
        mnist_lib.set_seed(0)
        net = mnist_lib.make_net(recipe)
        with (
            once_there(folder, f"checkpoint-{done + 2}.pt", interrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            mnist_lib.train(net, few, recipe, folder=folder, verbose=False)
    runs = [mnist_lib.load_history(tmp_path / name) for name in ("run", "undisturbed")]
    losses = [[epoch.test_loss for epoch in run] for run in runs]
    assert losses[0] == losses[1]
    assert len(runs[0]) == done + 2


@pytest.mark.parametrize(
    ("end", "epochs", "said"),
    [
        (KeyboardInterrupt(), 0, "stopped; the run's folder keeps its whole epochs: run again"),
        (KeyboardInterrupt(), 3, "stopped; epochs 1 to 3 are kept in FOLDER: run again"),
        (DeadKernelError("Kernel died"), 3, "the notebook's process was killed, perhaps"),
        (PapermillExecutionError(1, 1, "", "Error", "no", []), 0, "Error: no"),
    ],
)
def test_what_ends_the_kernel_is_one_sentence(tmp_path, monkeypatch, end, epochs, said):
    """After Ctrl-C, the cell's own word may be lost: the sentence names what the folder has."""

    def execute(nb_man, kernel_name, **options):
        load = next(cell for cell in nb_man.nb.cells if cell.id == "load")
        load.outputs = [nbformat.v4.new_output("display_data", metadata={"run_dir": str(tmp_path)})]
        raise end

    monkeypatch.setattr(NBClientEngine, "execute_managed_notebook", execute)
    (tmp_path / NOTEBOOK.name).write_text("of the run before")
    if epochs:
        save_history(tmp_path / "history.json", make(*[9000] * epochs))
    with pytest.raises(SystemExit) as caught:
        tools.run([])
    assert caught.value.code.startswith(said.replace("FOLDER", str(tmp_path)))
    assert "\n" not in caught.value.code
    assert (tmp_path / NOTEBOOK.name).read_text() == "of the run before"


@pytest.mark.parametrize("words", [["-y", "{epoch: 3}"], ["--no-such-option"]])
def test_words_that_are_none_are_refused_in_one_line(words):
    said = "papermill: (the notebook has no parameter 'epoch'; did you mean |No such option)"
    with pytest.raises(SystemExit, match=rf"^{said}.*$") as caught:
        tools.run(words)
    assert "\n" not in caught.value.code


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", []),
        ("w", []),
        ("kw -- epochs=1 ARGS=-p\\ seed\\ 3 PYTHON=python3", ["-p", "epochs", "1"]),
        (" -- run_dir=a\\ b recipe=fast", ["-p", "run_dir", "a b", "-p", "recipe", "fast"]),
        (" -- run_dir=it's", ["-p", "run_dir", "it's"]),
        ("recipe=fast", ["-p", "recipe", "fast"]),  # of make 3.81, without flags
        ("rR --jobserver-auth=3,4", []),
    ],
)
def test_parameters_may_be_makes_variables(monkeypatch, flags, words):
    monkeypatch.setenv("MAKEFLAGS", flags)
    assert tools.make_variables() == words


def test_make_draw_takes_weights_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tools.py", "draw", "--weights", "steady"])
    monkeypatch.setattr(tools, "draw", lambda weights: tools.ROOT / weights)
    monkeypatch.setenv("MAKEFLAGS", " -- weights=steady VENV=.v2")
    tools.main()
    assert capsys.readouterr().out == "wrote steady; open it in a browser\n"
    monkeypatch.setenv("MAKEFLAGS", " -- recipe=fast")
    with pytest.raises(SystemExit, match="2"):
        tools.main()
    assert "draw takes no 'recipe'" in capsys.readouterr().err


def test_make_hands_them_on_from_any_folder(tmp_path):
    """With `make -C`, a run_dir is relative to the folder it was called from."""
    checkout = tmp_path / "checkout"
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    (checkout / ".venv" / "ready").touch()
    python.write_text("#!/bin/sh\npwd; echo $MAKEFLAGS; echo $@\n")
    python.chmod(0o755)
    for command, at in ((["make"], checkout), (["make", "-C", "checkout"], tmp_path)):
        words = [*command, "run", "epochs=1", "ARGS=-p seed 3"]
        env = os.environ | {"PWD": str(at), "MAKEFLAGS": ""}
        if at is checkout:
            del env["PWD"]
        result = subprocess.run(words, cwd=at, env=env, capture_output=True, text=True)
        assert str(at.resolve()) in result.stdout.splitlines(), result.stderr
        assert "epochs=1" in result.stdout
        assert result.stdout.count("run -p seed 3") == 1
        words[len(command) :] = ["draw", "weights=runs/x"]
        result = subprocess.run(words, cwd=at, env=env, capture_output=True, text=True)
        assert str(at.resolve()) in result.stdout.splitlines(), result.stderr
        assert result.stdout.count("draw --weights runs/x") == 1


def test_the_page_has_the_weights_that_are_asked_for(tmp_path):
    page = tools.draw("fast", tmp_path / "draw.html")
    assert "fast, 13,322 parameters" in page.read_text(encoding="utf-8")


def test_record_needs_mnist_and_loses_no_run_without(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_DATA", str(tmp_path / "nowhere"))
    monkeypatch.delenv("MNIST_RUNS", raising=False)  # which it takes out of the environment
    old, checkout = tmp_path / "runs" / "assignment-seed0", tmp_path / "notebooks"
    for folder in (old, checkout):
        folder.mkdir(parents=True)
    (old / "history.json").write_text("of an earlier day")
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.id == "parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), checkout / NOTEBOOK.name)
    committed = (checkout / NOTEBOOK.name).read_bytes()
    with pytest.raises(DataError, match="nowhere is not a folder"):
        tools.record(tmp_path)
    assert (old / "history.json").exists()
    assert (checkout / NOTEBOOK.name).read_bytes() == committed
    assert not (checkout / "records").exists()


@pytest.mark.parametrize(
    ("source", "last", "parameters", "said", "made"),
    [
        (NOTEBOOK, "files", QUICK, "Verdict on the SAMPLE", {"out.ipynb", "runs"}),
        (tools.INSIDE, "fields", {"data_source": "sample"}, "SAMPLE of MNIST", {"out.ipynb"}),
    ],
    ids=["main", "inside"],
)
def test_single_file_runs_in_an_empty_folder(tmp_path, source, last, parameters, said, made):
    """As in Colab: no repository, no mnist_lib to import, a google.colab to be found."""
    single = tools.colab(source, tmp_path / "dist")
    notebook = nbformat.read(single, as_version=4)
    del notebook.cells[[cell.id for cell in notebook.cells].index(last) + 1 :]
    nbformat.write(notebook, single)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert notebook.metadata.accelerator == "GPU"
    setup = notebook.cells[1]
    assert setup.metadata == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert len(setup.source.splitlines()) < 60, "the library is on one line"
    links = re.findall(r"\[([\w.]+)\]\(([\w.]+)\)", str(notebook.cells))
    assert links == [("inside_the_net_colab.ipynb",) * 2] * (source is NOTEBOOK)
    empty, site = tmp_path / "empty", tmp_path / "site"
    empty.mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "plots.py").write_text("of a checkout above, not this file's own")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("")
    # Loaded by the kernel's interpreter at its start, before the editable install can be used.
    (site / "sitecustomize.py").write_text(
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mnist_lib' and not any('mnist_lib-' in p for p in sys.path):\n"
        "            raise ModuleNotFoundError('mnist_lib is hidden')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import google.colab\n"
    )
    there = {"cwd": empty, "env": os.environ | {"PYTHONPATH": str(site)}}
    blind = subprocess.run([sys.executable, "-c", "import mnist_lib"], **there)
    assert blind.returncode != 0, "the stand-in hides the library"
    words = [sys.executable, "-m", "papermill", str(single), "out.ipynb", "--no-progress-bar"]
    words += ["-y", str(parameters)]
    result = subprocess.run(words, **there, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    executed = nbformat.read(empty / "out.ipynb", as_version=4)
    assert said in stdout(executed)
    assert {path.name for path in empty.iterdir()} == made
