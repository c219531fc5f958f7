"""Runs that are really killed, interrupted, crowded or out of disk: nothing trained is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from mnist_lib import RunError, get_recipe, load_history, run_folder
from mnist_lib.base.files import lock
from tests.conftest import ROOT, die_with, wait_for
from tests.runs.killing import FORK, KILLS, RECIPES, few, run

RECIPE = get_recipe("fast", epochs=3, batch_size=16, first=1.0, hardest=0.75)  # 4, 3, 3 steps
TRAIN = """
import sys, mnist_lib
data = mnist_lib.load_mnist(source="sample").take(500)
recipe = mnist_lib.get_recipe("steady", epochs=500, batch_size=50)
mnist_lib.train(mnist_lib.make_net(recipe), data, recipe, folder=sys.argv[1])
"""


@pytest.fixture(scope="module")
def kills(tmp_path_factory):
    """What tests.runs.killing counts, by recipe; with one thread, as a pool cannot be forked."""
    command = [sys.executable, "-m", "tests.runs.killing", tmp_path_factory.mktemp("kills")]
    options = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "timeout": 600}
    options["preexec_fn"] = partial(die_with, os.getpid())
    result = subprocess.run(command, **options, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_runs_end_like_undisturbed_ones(kills, recipe):
    """SIGKILL at random moments and, with the recipe that keeps most, all through writing."""
    count = kills[recipe]
    assert count["at_random"] >= KILLS[recipe] >= 10
    assert count["writing"] >= (20 if recipe == "fast" else 0)
    assert count["equal"] == count["runs"] > 2


def test_control_c(tmp_path, start):
    """It ends in the midst of the run, with a sentence before Python's own words."""
    process = start([sys.executable, "-c", TRAIN, str(tmp_path)])
    wait_for(tmp_path / "checkpoint-3.pt")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    kept = re.search(r"stopped; epochs 1 to (\d+) are kept in .*: run again to go on\n", said)
    assert int(kept[1]) - len(load_history(tmp_path)) in (0, 1), "1 if between the two files"
    assert int(kept[1]) < 500
    assert process.returncode != 0


def test_two_runs_at_once(sample, tmp_path):
    """The second is refused while the first lives, and not by what it left when it is killed."""

    def hold(parent):
        die_with(parent)
        with lock(tmp_path):
            ready.set()
            time.sleep(60)

    part, ready = few(sample, 64), FORK.Event()
    first = FORK.Process(target=hold, args=(os.getpid(),))
    first.start()
    assert ready.wait(60)
    with pytest.raises(RunError, match=rf"in use by another run: .* remove {tmp_path}/\.lock"):
        run(part, tmp_path, RECIPE)
    first.kill()
    first.join()
    assert (tmp_path / ".lock").exists()
    assert run(part, tmp_path, RECIPE) == run(part, None, RECIPE)


def test_full_and_read_only_disk(sample, small_disk):
    part, (folder, remount) = few(sample, 64), small_disk
    message = f"2.pt cannot be written: No space left on .*: mend .*; epoch 1 is kept in {folder}$"
    with pytest.raises(RunError, match=message):
        run(part, folder, RECIPE)
    assert {path.name for path in folder.glob("[!.]*")} == {"checkpoint-1.pt", "history.json"}
    remount("size=1m")
    assert run(part, folder, RECIPE) == run(part, None, RECIPE)
    remount("ro")
    for work in (lambda: run(part, folder, RECIPE), lambda: run_folder(folder, RECIPE, 0, part)):
        with pytest.raises(RunError, match=f"{folder} cannot be written: Read-only file system$"):
            work()
