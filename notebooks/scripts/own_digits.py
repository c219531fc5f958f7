"""How well are digits read that nobody here drew? `python notebooks/scripts/own_digits.py`.

Digits by other hands (scikit-learn's load_digits, 8 x 8 pixels), of Debian's fonts, MNIST's own
test digits, and some of these with ink around them, each prepared by `prepare` and by the raw way:
resized to 28 x 28. Prints the rows and writes them to the library's own_digits.csv.
"""

import argparse
import csv
import functools
import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from sklearn.datasets import load_digits

from mnist_lib import DataError, infer, load_mnist, prepare, pretrained
from mnist_lib.base import machine
from mnist_lib.base.errors import exit_in_a_sentence
from mnist_lib.base.files import write_file
from mnist_lib.grade import records

TARGET = Path(records.__file__).with_name("own_digits.csv")
FONTS = (  # of Debian's packages, one face a family; Pillow finds them by name
    *("Cantarell-Regular.otf", "ComicNeue-Regular.otf", "DancingScript-Regular.otf"),
    *("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "FreeSans.ttf", "FreeSerif.ttf"),
    *("FreeMono.ttf", "Lato-Regular.ttf", "LiberationMono-Regular.ttf", "Quicksand-Regular.ttf"),
    *("LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf", "Roboto-Regular.ttf"),
    *("Breip.ttf", "Ecolier-court.ttf", "Humor-Sans.ttf", "Inconsolata.otf"),
)
SIDE = 200  # pixels of a font's picture
Pictures = list[tuple[Image.Image, int]]  # each with its digit


def by_other_hands() -> Pictures:
    """The 1,797 digits of the UCI's test set, light on dark."""
    digits = load_digits()
    images = (255 / 16 * digits.images).round().astype(np.uint8)
    return [(Image.fromarray(i), int(d)) for i, d in zip(images, digits.target, strict=True)]


def of_fonts(*degrees: float) -> Pictures:
    """Each digit of each font, dark on light, turned by each of these."""
    pictures = []
    for font in FONTS:
        for digit in range(10):
            picture = Image.new("L", (SIDE, SIDE), "white")
            try:
                pen, shape = ImageDraw.Draw(picture), ImageFont.truetype(font, 90)
            except OSError:
                sys.exit(f"the font {font} is missing: install the Debian package that has it")
            pen.text((SIDE / 2, SIDE / 2), str(digit), font=shape, fill="black", anchor="mm")
            for turn in degrees:
                turned = picture.rotate(turn, Image.Resampling.BICUBIC, fillcolor="white")
                pictures.append((turned, digit))
    return pictures


@functools.cache
def of_mnist() -> Pictures:
    """The 10,000 test digits themselves."""
    data = load_mnist(source="mnist")
    images, labels = data.test_images.numpy(), data.test_labels.tolist()
    return [(Image.fromarray(image), label) for image, label in zip(images, labels, strict=True)]


def with_ink_around(add) -> Pictures:
    """MNIST's last 200 test digits, dark on light, ten times as large; `add` draws the ink."""
    random, pictures = np.random.default_rng(0), []
    for small, digit in of_mnist()[-200:]:
        picture = ImageOps.invert(small).resize((280, 280), Image.Resampling.BICUBIC)
        pictures.append((add(picture, random), digit))
    return pictures


def bounds(picture: Image.Image) -> tuple[int, int, int, int]:
    """The left, upper, right and lower end of the ink."""
    return ImageOps.invert(picture).point(lambda value: 255 * (value > 60)).getbbox()


def rim(picture: Image.Image, random) -> Image.Image:
    """A black rim, 1 to 12 pixels wide, as a scan's."""
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 279, 279), outline=0, width=int(random.integers(1, 13)))
    return picture


def box(picture: Image.Image, random) -> Image.Image:
    """A printed box, 10 to 40 pixels from the digit."""
    page = Image.new("L", (400, 400), 255)
    page.paste(picture, (60, 60))
    gaps, width = random.integers(10, 41, 4), int(random.integers(1, 9))
    corners = np.array(bounds(picture)) + 60 + gaps * [-1, -1, 1, 1]
    ImageDraw.Draw(page).rectangle(corners.tolist(), outline=0, width=width)
    return page


def desk(picture: Image.Image, random) -> Image.Image:
    """A sheet of paper on a dark desk, turned by up to 10 degrees, some sides out of view."""
    level = int(random.integers(10, 90))
    table = Image.new("L", (480, 480), level)
    table.paste(picture, (100, 100))
    table = table.rotate(random.uniform(-10, 10), Image.Resampling.BICUBIC, fillcolor=level)
    left, top = random.integers(20, 130, 2).tolist()
    noise = random.normal(0, 5, (360, 360))
    grey = np.asarray(table.crop((left, top, left + 360, top + 360)), dtype=float) + noise
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def line(picture: Image.Image, random) -> Image.Image:
    """A line, 2 to 11 pixels wide, below the digit."""
    bottom = bounds(picture)[3]
    width, slope = int(random.integers(2, 12)), random.uniform(-6, 6)
    height = bottom + int(random.integers(10, 25)) + width / 2
    ends = (-5, height - slope, 285, height + slope)
    ImageDraw.Draw(picture).line(ends, fill=int(random.integers(0, 120)), width=width)
    return picture


def raw(picture: Image.Image) -> torch.Tensor:
    """Resized, and hope."""
    small = picture.convert("L").resize((28, 28), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small))


def correct(pictures: Pictures, way, net) -> int:
    """How many are read as what they are; one that is refused is not."""
    images, labels = [], []
    for picture, digit in pictures:
        try:
            images.append(way(picture))
        except DataError as error:
            print(f"a {digit}: {error}")
        else:
            labels.append(digit)
    said = infer(net, torch.stack(images)).argmax(dim=1)
    return (said == torch.tensor(labels)).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser("own_digits", description=__doc__)
    parser.parse_args()
    with exit_in_a_sentence(parser.prog):
        measure()


def measure() -> None:
    """Read all sets in both ways, and write the table that the library carries."""
    sets = {
        "by other hands, 8 x 8 (load_digits)": by_other_hands(),
        f"of {len(FONTS)} fonts, upright": of_fonts(0),
        f"of {len(FONTS)} fonts, turned 15° either way": of_fonts(-15, 15),
        "MNIST's test digits, prepared again": of_mnist(),
        "the same in a black rim": with_ink_around(rim),
        "the same in a printed box": with_ink_around(box),
        "the same on a dark desk": with_ink_around(desk),
        "the same above a line": with_ink_around(line),
    }
    rows, net = [], pretrained("steady")
    for name, pictures in sets.items():
        for way in (prepare, raw):
            right = correct(pictures, way, net)
            row = {"digits": name, "way": way.__name__, "images": len(pictures), "correct": right}
            rows.append(row | {"weights": "steady", "machine": machine.rounding()})
            print(rows[-1], f"{right / len(pictures):.2%}", flush=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(TARGET, lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


if __name__ == "__main__":
    main()
