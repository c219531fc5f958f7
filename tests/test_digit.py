"""Pictures that people have: prepared as MNIST's digits were, or refused in a sentence."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from mnist_lib import DataError, ParameterError, infer, predict, prepare, pretrained
from mnist_lib.errors import MnistLibError, RunError


def drawn(size=(300, 400), ink=20, paper=235, width=22, mode="L"):
    """A 7 by hand."""
    picture = Image.new("L", size, paper)
    scale = min(size) / 300
    points = [(90, 110), (210, 110), (140, 300)]
    line = [(x * scale, y * scale) for x, y in points]
    ImageDraw.Draw(picture).line(line, fill=ink, width=max(1, round(width * scale)), joint="curve")
    return picture.convert(mode)


def alpha(picture, ink):
    """The same strokes in one colour on a transparent ground."""
    layer = Image.new("RGBA", picture.size, (*ink, 0))
    strokes = picture.point(lambda value: 255 - value)
    layer.putalpha(strokes)
    return layer


def lit(picture, strength=90):
    """Paper in a light from one side."""
    grey = np.asarray(picture, dtype=float)
    slope = (
        np.linspace(0, strength, grey.shape[1])[None] + np.linspace(0, 40, grey.shape[0])[:, None]
    )
    noise = np.random.default_rng(0).normal(0, 4, grey.shape)
    return Image.fromarray((grey - slope + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        drawn(),
        drawn(ink=230, paper=10),
        drawn(mode="RGB"),
        drawn(mode="P"),
        drawn(mode="1"),
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
    ],
)
def test_a_seven_is_read_whatever_the_picture(picture):
    probabilities, image = predict(picture)
    assert probabilities.argmax() == 7
    assert image.shape == (28, 28)
    assert image.dtype == torch.uint8


def test_the_prepared_picture_has_the_form_of_mnists():
    image = prepare(drawn()).numpy()
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    y, x = np.average(np.indices(image.shape).reshape(2, -1), axis=1, weights=image.ravel())
    assert abs(y - 13.5) <= 1
    assert abs(x - 13.5) <= 1
    assert image.max() == 255


def test_a_digit_of_mnist_stays_what_it_is(sample):
    images, labels = sample.test_images[:50], sample.test_labels[:50]
    prepared = torch.stack([prepare(image) for image in images])
    assert (infer(pretrained("steady"), prepared).argmax(dim=1) == labels).sum() >= 49


def test_digits_by_other_hands_are_read():
    digits = load_digits()
    every = slice(None, None, 20)
    images = (255 / 16 * digits.images[every]).round().astype(np.uint8)
    prepared = torch.stack([prepare(image) for image in images])
    said = infer(pretrained("steady"), prepared).argmax(dim=1)
    assert (said == torch.from_numpy(digits.target[every])).float().mean() >= 0.9


def two_digits():
    picture = Image.new("L", (400, 300), 255)
    picture.paste(drawn(size=(200, 266)), (0, 10))
    picture.paste(drawn(size=(200, 266)), (200, 10))
    return picture


def a_page():
    picture = Image.new("L", (600, 800), 235)
    for row in range(5):
        for column in range(5):
            picture.paste(drawn(size=(100, 133)), (20 + 110 * column, 20 + 150 * row))
    return picture


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.new("L", (200, 200), 255), "no ink"),
        (Image.new("L", (1, 1), 255), "no ink"),
        (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "no ink"),
        (lit(Image.new("L", (200, 200), 200)), "no ink"),
        (two_digits(), "cut out a single digit"),
        (a_page(), "cut out a single digit"),
    ],
)
def test_a_picture_without_one_digit_is_refused(picture, said):
    with pytest.raises(DataError, match=said):
        prepare(picture)


@pytest.mark.parametrize(
    "image",
    [
        None,
        7,
        [[0, 255]],
        np.zeros((0, 28), np.uint8),
        np.zeros((2, 28, 28), np.uint8),
        np.full((28, 28), 3.5),
        np.full((28, 28), np.nan),
        np.zeros((28, 28), np.int64),
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
        (b"", "is no picture"),
        (b"<!doctype html>", "is no picture"),
        (png(drawn())[:200], "broken"),
        (png(Image.new("1", (50_000, 2_000))), "million pixels"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path, content, said):
    file = tmp_path / "digit.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(MnistLibError, match=said) as caught:
        predict(file)
    assert isinstance(caught.value, RunError if content is None else DataError)


def test_a_turned_photograph_is_turned_back(tmp_path):
    file = tmp_path / "digit.jpg"
    turned = drawn().rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone held upright writes it: to be turned clockwise
    turned.save(file, exif=exif)
    assert predict(str(file)).digit == 7


def test_the_command_line_names_the_digit_and_goes_on(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    drawn().save(good)
    bad.write_bytes(b"no")
    command = [sys.executable, "-m", "mnist_lib.predict", str(bad), str(good)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{good}: 7\n0 ")
    assert re.search(r"^7 +\d+\.\d\d% #+$", done.stdout, re.MULTILINE)
    assert "bad.png is no picture" in done.stderr
    assert "Traceback" not in done.stderr
