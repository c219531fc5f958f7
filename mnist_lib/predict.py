"""What digit is it? `python -m mnist_lib.predict digit.png`: the ten probabilities of pictures."""

import argparse
import sys

from .digit import predict
from .errors import MnistLibError
from .run import pretrained, trained_recipes


def main() -> None:
    known = trained_recipes()
    parser = argparse.ArgumentParser(prog="mnist_lib.predict", description=__doc__)
    parser.add_argument("pictures", nargs="+", help="PNG, JPEG or the like, one digit each")
    parser.add_argument("--weights", default="steady", choices=known, help="trained by this recipe")
    args = parser.parse_args()
    refused = False
    net = pretrained(args.weights)
    for picture in args.pictures:
        try:
            prediction = predict(picture, net)
        except MnistLibError as error:
            refused = True
            print(f"{parser.prog}: {error}", file=sys.stderr)
        else:
            print(f"{picture}: {prediction.digit}\n{prediction}")
    sys.exit(refused)


if __name__ == "__main__":
    main()
