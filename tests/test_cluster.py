"""Studies on a Dask cluster: a scheduler and two workers, processes of this machine."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from mnist_lib import get_recipe, jobs, load_study
from mnist_lib.errors import ParameterError, RunError
from mnist_lib.study import study

from .conftest import wait_for
from .test_study import few_images, losses, path  # noqa: F401 (a fixture)

pytest.importorskip("distributed", reason="an extra: pip install '.[dask]'")
ROOT = Path(__file__).parents[1]
RECIPES = [get_recipe("assignment", epochs=2), get_recipe("sprint", epochs=1)]
on_worker = jobs._run_on_worker


def run_few_on_worker(job):
    """The run, of few images; the first worker that has made that of seed 3 is killed then."""
    jobs.load_mnist = few_images
    made = on_worker(job)
    if job.seed == 3:
        try:
            Path(job.data_dir).touch(exist_ok=False)
        except FileExistsError:
            return made
        os.kill(os.getpid(), signal.SIGKILL)
    return made


@pytest.fixture
def cluster(tmp_path, start, monkeypatch):
    """Starts a scheduler and workers, each of so many threads; the scheduler's address."""
    monkeypatch.setattr(jobs, "_run_on_worker", run_few_on_worker)
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def make(*threads: int) -> str:
        def command(name, *args):
            common = ["--scheduler-file", str(file), "--no-dashboard"]
            cli = [sys.executable, "-m", f"distributed.cli.{name}", *common, *args]
            start(cli, cwd=tmp_path, env=environment)

        command("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(file)
        for number in threads:
            command("dask_worker", "--no-nanny", "--nthreads", str(number))
        return json.loads(file.read_text())["address"]

    return make


def test_a_cluster_makes_the_same_records_though_a_worker_is_killed(path, cluster):  # noqa: F811
    here = study(path.with_stem("here"), RECIPES, [2, 3], 2)
    killed = path.with_name("killed")
    there = study(path, RECIPES, [2, 3], data_dir=str(killed), scheduler=cluster(1, 1))
    assert killed.exists()
    assert list(map(losses, there)) == list(map(losses, here))
    for run in (*there, *here):
        del run.record["memory"]
    assert [run.record for run in there] == [run.record for run in here]
    assert sorted(map(losses, load_study(path))) == sorted(map(losses, here))


def test_a_single_worker_makes_the_runs(path, cluster):  # noqa: F811
    """And not the caller's own process, which is none of Dask's."""
    (run,) = study(path, RECIPES[1:], [2], scheduler=cluster(1))
    assert losses(run) == losses(study(path.with_stem("here"), RECIPES[1:], [2], 1)[0])


def test_a_worker_of_several_threads_is_refused(path, cluster):  # noqa: F811
    with pytest.raises(RunError, match=r"has 2 threads, .*: start it with --nthreads 1"):
        study(path, RECIPES, [0], scheduler=cluster(2))


def test_no_scheduler_is_one_sentence(path):  # noqa: F811
    with pytest.raises(RunError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        study(path, RECIPES, [0], scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ParameterError, match="processes are of this machine"):
        study(path, RECIPES, [0], 2, scheduler="tcp://127.0.0.1:9")
