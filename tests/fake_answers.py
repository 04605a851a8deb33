"""Answers to the images of a test, and runs that have them, made without any training."""

from pathlib import Path
from typing import Any

import torch
from fake_runs import make_run
from torch.nn import functional as F

from reslab.run import Run
from reslab.training.answers import Answers, write_answers
from reslab.training.metrics import Metrics

STEP = 40


def make_answers(n: int = 200, num_classes: int = 4, *, seed: int = 0, scale: float = 2, **other: Any) -> Answers:
    """Return answers of which most are right; `other` has the classes and the files."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (n,), generator=generator)
    logits = torch.randn(n, num_classes, generator=generator) + scale * F.one_hot(labels, num_classes)
    other.setdefault("classes", [f"class {number}" for number in range(num_classes)])
    return Answers(logits, labels, torch.arange(n), **other)


def metrics_of(answers: Answers) -> dict[str, float]:
    """Return what a test of the network would have measured."""
    metrics = Metrics(len(answers.classes), final=True)
    metrics.add(F.cross_entropy(answers.logits, answers.labels), answers.logits, answers.labels)
    return {f"test/{name}": float(value) for name, value in metrics.compute().items()} | {"test/images": len(answers)}


def make_tested_run(folder: Path, answers: Answers, **result: Any) -> Run:
    """Make the folder of a run with answers, and without checkpoints."""
    result = {"status": "finished", "val/accuracy": 0.5, "steps": 60, "best_step": STEP} | metrics_of(answers) | result
    run = Run(make_run(folder, result=result, curve=[(0.5, 0.25), (0.75, 0.5)]))
    write_answers(run.answers_file, answers, STEP)
    return run
