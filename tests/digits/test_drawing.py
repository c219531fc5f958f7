"""The page to draw on: in a real browser, its numbers are torch's."""

import pytest
import torch

from mnist_lib import ParameterError, Rescaled, infer, pretrained, set_seed
from mnist_lib.digits import drawing
from mnist_lib.net import FastNet, Net
from mnist_lib.nets import LEAN, WIDTHS, FoldedNet, LeanNet, SmallNet, SprintNet


def lively(net):
    """The net with batch norms that do something: as they begin, they would hide a wrong sign."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (*module.parameters(), module.running_mean, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 1.5)
    return net


NAMES = ("steady", "fast", "Net", "Rescaled", "SprintNet", "FoldedNet", "p998", "p1000")


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_computes_what_torch_does(browser, sample, name):
    set_seed(0)
    nets = {"Net": Net(), "SprintNet": SprintNet(20), "p998": SmallNet(WIDTHS["p998"], 24)}
    nets |= {
        "FoldedNet": FoldedNet(24),
        "p1000": LeanNet(LEAN["p1000"]),
        "Rescaled": Rescaled(Net(), 0.5, 0.25),
    }
    net = lively(nets[name]) if name in nets else pretrained(name)
    images = sample.test_images[:100]
    page = browser.new_page()
    page.set_content(drawing.page(net))
    pixels = images.flatten(1).tolist()
    answers = torch.tensor(page.evaluate("images => images.map(probabilities)", pixels))
    page.close()
    assert (answers - infer(net, images).exp()).abs().max() < 1e-4


@pytest.mark.parametrize(("width", "touch"), [(1280, False), (390, True)])
def test_a_stroke_is_read_as_a_one(browser, width, touch):
    page = browser.new_page(viewport={"width": width, "height": 800}, has_touch=touch)
    page.set_content(drawing.page(pretrained("steady"), "a</script>"))
    assert page.locator("#name").text_content() == "a</script>, 13,322 parameters"
    paper = page.locator("#paper").bounding_box()
    assert paper["x"] + paper["width"] <= width
    x, y = paper["x"] + 140, paper["y"]
    page.mouse.move(x, y + 50)
    page.mouse.down()
    page.mouse.move(x, y + 230, steps=10)
    page.mouse.up()
    best = page.locator(".best")
    assert best.locator("span").first.text_content() == "1"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#clear").click()
    page.mouse.move(x, y - 10)  # a stroke begun beside the paper is none
    page.mouse.down()
    page.mouse.move(x, y + 230, steps=10)
    page.mouse.up()
    page.mouse.click(x, y + 100, button="right")
    assert best.count() == 0
    page.close()


def test_drawing_leaves_the_net_as_it_was():
    nets = [FastNet(), SprintNet().bfloat16(), SmallNet(WIDTHS["p998"]), LeanNet(LEAN["p1000"])]
    net = nets[0].train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    for drawn in nets:
        drawing.page(drawn)
    assert net.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_net_that_the_page_does_not_know_is_refused():
    class Own(Net):
        def forward(self, x):
            return -super().forward(x)

    with pytest.raises(ParameterError, match="got a Own"):
        drawing.page(Own())
    changed, hooked = Net(), Net()
    changed.BatchNorm1 = torch.nn.GroupNorm(2, 8)
    hooked.conv7.register_forward_hook(lambda module, args, output: -output)
    for net in (changed, hooked):
        with pytest.raises(ParameterError, match="a part that the page cannot compute: "):
            drawing.page(net)
