"""The notebook in JupyterLab, in a real browser: all cells run, and a drawn digit is read."""

import os
import re
import socket
import sys

import nbformat
import pytest

from tests.conftest import wait_for
from tests.notebooks.running import NOTEBOOK

FEW = "data_source, recipe, epochs, run_dir = 'sample', 'fast', 1, 'run'"
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
DONE = f"""() => {{
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  return document.querySelector('{ERROR}') || /\\d/.test(prompts.at(-1).textContent);
}}"""


@pytest.fixture
def lab(tmp_path, start):
    """JupyterLab's address, with the notebook in its folder; all settings are its own."""
    pytest.importorskip("jupyterlab")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.update({"outputs": [], "execution_count": None} if "outputs" in cell else {})
    at = [cell.id for cell in notebook.cells].index("parameters")
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(FEW))
    nbformat.write(notebook, tmp_path / "run.ipynb")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR")
    env = os.environ | dict.fromkeys(names, str(tmp_path / "settings"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token="]
    server = start([sys.executable, "-m", "jupyterlab", *words], cwd=tmp_path, env=env)
    wait_for(tmp_path / "settings" / "runtime" / f"jpserver-{server.pid}.json")
    return f"http://127.0.0.1:{port}/lab/tree/run.ipynb"


def test_all_cells_run_and_a_drawn_digit_is_read_at_both_widths(browser, lab):
    page, missing = browser.new_page(viewport={"width": 1366, "height": 900}), []
    page.set_default_timeout(60_000)
    page.on("response", lambda got: got.status >= 400 and missing.append(got.url))
    page.goto(lab)
    page.get_by_text(re.compile(r"\| Idle$")).wait_for()
    page.locator(".jp-SideBar.jp-mod-left .lm-TabBar-tab").first.click()  # folds the files' list
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(DONE, timeout=100_000)
    assert [error.text_content() for error in page.locator(ERROR).all()] == []
    for image in page.locator(".jp-OutputArea-output img").all():
        assert image.get_attribute("alt")
    assert page.get_by_text("Verdict on the SAMPLE of MNIST").first.is_visible()
    for width in (1366, 390):
        page.set_viewport_size({"width": width, "height": 900})
        drawing = page.frame_locator("iframe[title='Draw a digit']")
        drawing.locator("#clear").click()
        page.wait_for_timeout(500)  # until the cells above have their new heights
        drawing.locator("#paper").scroll_into_view_if_needed()
        paper = drawing.locator("#paper").bounding_box()
        x, y, side = paper["x"] + paper["width"] / 2, paper["y"], paper["height"]
        page.mouse.move(x, y + 0.2 * side)
        page.mouse.down()
        page.mouse.move(x, y + 0.8 * side, steps=10)
        page.mouse.up()
        assert drawing.locator(".best span").first.text_content() == "1"
    assert missing == []
