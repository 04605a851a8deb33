"""`python src/predict.py` is `reslab predict`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("predict")
