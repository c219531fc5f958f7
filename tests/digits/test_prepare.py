"""Pictures that people have: prepared as MNIST's digits were, or refused in a sentence."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_digits

from mnist_lib import DataError, ParameterError, RunError, infer, predict, prepare, pretrained


def drawn(size=(300, 400), ink=20, paper=235, width=22, mode="L"):
    """A 7, as if drawn by hand."""
    picture = Image.new("L", size, paper)
    scale = min(size) / 300
    line = [(x * scale, y * scale) for x, y in ((90, 110), (210, 110), (140, 300))]
    ImageDraw.Draw(picture).line(line, fill=ink, width=max(1, round(width * scale)), joint="curve")
    return picture.convert(mode)


def alpha(picture, ink):
    """The same strokes in one colour, and transparent around them."""
    layer = Image.new("RGBA", picture.size, (*ink, 0))
    layer.putalpha(picture.point(lambda value: 255 - value))
    return layer


def lit(picture, strength=90):
    """The picture as if light fell on it from one side."""
    grey = np.asarray(picture, dtype=float)
    down, across = (np.linspace(0, to, n) for to, n in zip((40, strength), grey.shape, strict=True))
    slope = np.add.outer(down, across)
    noise = np.random.default_rng(0).normal(0, 4, grey.shape)
    return Image.fromarray((grey - slope + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        drawn(),
        drawn(ink=230, paper=10),
        drawn(mode="RGB"),
        drawn().convert("I"),
        drawn().convert("F"),
        drawn(size=(28, 28), width=30),
        drawn(size=(3000, 4000)),
        drawn(size=(1200, 300)),
        drawn(width=5),
        drawn(ink=200),
        lit(drawn()),
        alpha(drawn(paper=255), (0, 0, 0)),
        alpha(drawn(paper=255), (255, 255, 255)),
        np.asarray(drawn()),
        np.asarray(drawn(mode="RGB")),
        np.asarray(drawn()) / 255,
        torch.from_numpy(np.array(drawn()))[None],
        torch.from_numpy(np.array(drawn()) / 255).bfloat16(),
        np.asarray(drawn()) // 128,
    ],
)
def test_a_seven_is_read_whatever_the_picture(picture):
    probabilities, image = predict(picture)
    assert probabilities.argmax() == 7
    assert (image.shape, image.dtype) == ((28, 28), torch.uint8)


@pytest.mark.parametrize("grey", [0.65, 0.74])
def test_a_faint_digit_beside_dark_specks_is_cut_out(grey):
    y, x = np.mgrid[:280, :280] - 140
    picture = np.where((x * x + y * y > 56**2) & (x * x + y * y < 70**2), grey, 1.0)
    for row, column in ((30, 30), (30, 240), (240, 30), (240, 240)):
        picture[row : row + 9, column : column + 9] = 0
    assert prepare(picture)[4:24, 4:24].float().mean() > 60


def test_the_prepared_picture_has_the_form_of_mnists():
    image = prepare(drawn()).numpy()
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    y, x = np.average(np.indices(image.shape).reshape(2, -1), axis=1, weights=image.ravel())
    assert max(abs(y - 13.5), abs(x - 13.5)) <= 1
    assert image.max() == 255


@pytest.mark.parametrize(("hands", "right"), [("MNIST", 0.98), ("other", 0.9)])
def test_digits_of_mnist_and_by_other_hands_are_read(sample, hands, right):
    images, labels = sample.test_images[:50], sample.test_labels[:50]
    if hands == "other":
        digits, some = load_digits(), slice(None, None, 20)
        images = (255 / 16 * digits.images[some]).round().astype(np.uint8)
        labels = torch.from_numpy(digits.target[some])
    prepared = torch.stack([prepare(image) for image in images])
    read = infer(pretrained("steady"), prepared).argmax(dim=1)
    assert (read == labels).float().mean() >= right


def ink_around(kind):
    """A 7 and strong ink that is none of it."""
    picture = drawn(size=(300, 400))
    pen, (right, bottom) = ImageDraw.Draw(picture), (299, 399)
    if kind == "rim":
        pen.rectangle((0, 0, right, bottom), outline=0)
    elif kind == "thick rim":
        pen.rectangle((0, 0, right, bottom), outline=0, width=12)
    elif kind == "box":
        pen.rectangle((40, 60, 260, 350), outline=0, width=5)
    elif kind == "circle":
        pen.ellipse((10, 65, 290, 345), outline=0, width=5)
    elif kind == "desk":
        desk = Image.new("L", (450, 500), 40)
        desk.paste(picture, (0, 50))
        picture = desk.rotate(4, fillcolor=40)
    elif kind == "line":
        pen.line((0, 330, right, 335), fill=0, width=6)
    elif kind == "short line":
        pen.line((60, 330, 240, 335), fill=0, width=6)
    elif kind == "thumb":
        pen.ellipse((200, 340, 400, 500), fill=60)
    return picture


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    "kind", ["rim", "thick rim", "box", "circle", "desk", "line", "short line", "thumb"]
)
def test_strong_ink_around_a_seven_is_left_out(kind, invert):
    picture = ink_around(kind)
    assert predict(ImageOps.invert(picture) if invert else picture).digit == 7


def strokes(slant, *across):
    """Ones, drawn as strokes of 16 pixels, `across` from the left."""
    picture = Image.new("L", (280, 280), 255)
    for x in across:
        ImageDraw.Draw(picture).line((x + slant, 60, x - slant, 220), fill=0, width=16)
    return picture


def touched_box():
    """A 7 that stands on its box."""
    picture = drawn()
    ImageDraw.Draw(picture).rectangle((60, 80, 240, 290), outline=0, width=6)
    return picture


def speck():
    """A digit 20 pixels high in a picture of 1,000."""
    picture = Image.new("L", (1000, 1000), 235)
    picture.paste(drawn(size=(27, 36)), (300, 500))
    return picture


def page(columns, rows):
    """A page full of sevens."""
    picture = Image.new("L", (20 + 110 * columns, 20 + 150 * rows), 235)
    for row in range(rows):
        for column in range(columns):
            picture.paste(drawn(size=(100, 133)), (20 + 110 * column, 20 + 150 * row))
    return picture


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.new("L", (200, 200), 255), "no ink"),
        (Image.new("L", (1, 1), 255), "no ink"),
        (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "no ink"),
        (lit(Image.new("L", (200, 200), 200)), "no ink"),
        (page(2, 1), "cut out a single digit"),
        (page(5, 5), "cut out a single digit"),
        (strokes(0, 130, 149), "2 shapes"),
        (strokes(28, 130, 150), "2 shapes"),
        (speck(), "specks: cut out a single digit"),
        (touched_box(), "no ink but a rim, frames"),
    ],
)
def test_a_picture_without_one_digit_is_refused(picture, said):
    with pytest.raises(DataError, match=said):
        prepare(picture)


@pytest.mark.parametrize(
    "image",
    [
        [[0, 255]],
        np.zeros((0, 28), np.uint8),
        np.zeros((2, 28, 28), np.uint8),
        np.full((28, 28), 3.5),
        np.full((28, 28), np.nan),
        np.full((28, 28), -1),
        torch.randn(1, 28, 28),
    ],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ParameterError, match=r"got|must be"):
        prepare(image)


def png(picture) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a picture"),
        (b"<!doctype html>", "is not a picture"),
        (png(drawn())[:200], "broken"),
        (png(Image.new("1", (50_000, 2_000))), "million pixels"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path, content, said):
    file = tmp_path / "digit.png"
    with pytest.raises(RunError, match="cannot be read"):
        predict(file)
    file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        predict(file)


def test_an_opened_picture_that_cannot_be_read_is_refused():
    closed = drawn()
    closed.close()
    for picture in (Image.open(io.BytesIO(png(drawn())[:200])), closed):
        with pytest.raises(DataError, match="is a broken picture"):
            predict(picture)


def test_a_turned_photograph_is_turned_back(tmp_path):
    file, exif = tmp_path / "digit.jpg", Image.Exif()
    for orientation, turn in ((3, 180), (6, 90), (8, 270)):  # of three ways to hold a phone
        exif[0x0112] = orientation
        drawn().rotate(turn, expand=True).save(file, exif=exif)
        assert predict(str(file)).digit == 7


def test_the_command_line_names_the_digit_and_goes_on(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    drawn().save(good)
    bad.write_bytes(b"no")
    command = [sys.executable, "-m", "mnist_lib.digits", str(bad), str(good)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{good}: 7\n0 ")
    assert re.search(r"^7 +\d+\.\d\d% #+$", done.stdout, re.MULTILINE)
    assert "bad.png is not a picture" in done.stderr
    assert "Traceback" not in done.stderr
