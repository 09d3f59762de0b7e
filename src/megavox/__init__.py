"""Megavox: train, tune and run deep learning on large medical images, from a laptop to a supercomputer."""
