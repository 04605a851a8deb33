"""Tell the classes of image files: python src/predict.py --help."""

from omegaconf import DictConfig

from reslab.command import command


def predict(config: DictConfig) -> None:
    from reslab.prediction import predict
    from reslab.results import print_predictions

    predictions = predict(config)
    if config.output is None:
        print_predictions(predictions)


if __name__ == "__main__":
    command("predict", predict)
