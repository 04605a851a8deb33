"""One run: `fit.py` runs it, `build.py` builds its parts, `classifier.py` is the LightningModule in its centre."""
