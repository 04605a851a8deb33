"""ResLab: a laboratory for residual networks."""
