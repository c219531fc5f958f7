"""Recognise digits: `python -m mnist_lib.digits digit.png` prints a picture's ten probabilities."""

import argparse
import sys

from ..base.errors import MnistLibError, exit_in_a_sentence
from ..runs.folder import pretrained, trained_names
from .prepare import predict


def main() -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.digits", description=__doc__)
    parser.add_argument("pictures", nargs="+", help="image files (PNG, JPEG, ...), one digit each")
    names = f"{', '.join(trained_names())}, or the folder of a run"
    parser.add_argument("--weights", default="steady", help=f"one of {names}; by default steady")
    failed = False
    with exit_in_a_sentence(parser.prog):
        args = parser.parse_intermixed_args()
        net = pretrained(args.weights)
        for picture in args.pictures:
            try:
                prediction = predict(picture, net)
                print(f"{picture}: {prediction.digit}\n{prediction}")
            except MnistLibError as error:
                failed = True
                print(f"{parser.prog}: {error}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
