"""One training: the loop, evaluation, and the hardware it runs on."""
