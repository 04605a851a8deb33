"""Test a trained network on its own or another data set: `reslab evaluate --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.options import EVALUATE_SCHEMA
from reslab.interruption import signals


def run_evaluate(config: DictConfig) -> None:
    """Test a network and print its scores."""
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_evaluation
        from reslab.inference.evaluation import evaluate

    print_evaluation(evaluate(config))


def main() -> None:
    command(EVALUATE_SCHEMA, run_evaluate)


if __name__ == "__main__":
    main()
