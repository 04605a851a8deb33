"""Measurements of the speed and the memory of training, and of the speed of inference."""
