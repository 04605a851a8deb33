"""Test a trained network on its own or another data set: python src/evaluate.py --help."""

from omegaconf import DictConfig

from reslab.command import command


def evaluate(config: DictConfig) -> None:
    from reslab.evaluation import evaluate
    from reslab.results import print_evaluation

    print_evaluation(evaluate(config))


if __name__ == "__main__":
    command("evaluate", evaluate)
