"""How well are digits read that nobody here drew? `python notebooks/scripts/own_digits.py`.

Digits by other hands (scikit-learn's load_digits, 8 x 8 pixels), of Debian's fonts, and
MNIST's own test digits, each prepared by `prepare` and by the raw way: resized to 28 x 28. Prints
the rows and writes them to the library's own_digits.csv.
"""

import csv
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from mnist_lib import DataError, infer, load_mnist, prepare, pretrained
from mnist_lib.base import machine
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
            pen, shape = ImageDraw.Draw(picture), ImageFont.truetype(font, 90)
            pen.text((SIDE / 2, SIDE / 2), str(digit), font=shape, fill="black", anchor="mm")
            for turn in degrees:
                turned = picture.rotate(turn, Image.Resampling.BICUBIC, fillcolor="white")
                pictures.append((turned, digit))
    return pictures


def of_mnist() -> Pictures:
    """The 10,000 test digits themselves."""
    data = load_mnist(source="mnist")
    images, labels = data.test_images.numpy(), data.test_labels.tolist()
    return [(Image.fromarray(image), label) for image, label in zip(images, labels, strict=True)]


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
    sets = {
        "by other hands, 8 x 8 (load_digits)": by_other_hands(),
        f"of {len(FONTS)} fonts, upright": of_fonts(0),
        f"of {len(FONTS)} fonts, turned 15° either way": of_fonts(-15, 15),
        "MNIST's test digits, prepared again": of_mnist(),
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
