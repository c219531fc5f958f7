"""99.44% on MNIST with 13,322 parameters: the net, the training loop and the verdict."""

__version__ = "1.0.0"
