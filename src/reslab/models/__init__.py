"""Residual networks: `resnet.py` builds every variant, `weights.py` loads published ones, `build.py` joins the two."""
