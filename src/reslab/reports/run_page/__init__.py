"""run.html: one run on one page, with its metrics, curves, confused classes and misclassified images."""
