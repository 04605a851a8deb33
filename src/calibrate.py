"""`python src/calibrate.py` is `reslab calibrate`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("calibrate")
