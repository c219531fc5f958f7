"""Your own digit: photographs prepared as MNIST was, and a page to draw on."""
