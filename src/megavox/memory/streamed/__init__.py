"""Convolutional networks computed slab by slab along Z: the same weights, the same result, a fraction of the memory."""
