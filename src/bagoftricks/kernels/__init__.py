"""Kernels of our own for training on x86 CPUs with bf16 units, built on the machine that runs them.

`kernels.c` holds them, `build` compiles and loads it, `functional` gives them to autograd and leaves to torch what they
do not apply to. Nothing here decides when they are used: `training.hardware` does.
"""
