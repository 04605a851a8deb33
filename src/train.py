"""`python src/train.py` is `reslab train`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("train")
