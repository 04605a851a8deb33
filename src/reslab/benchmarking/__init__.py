"""Measurements of the speed and the memory of training."""
