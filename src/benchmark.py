"""`python src/benchmark.py` is `reslab benchmark`, without an installation of the command."""

from reslab.commands.main import run

if __name__ == "__main__":
    run("benchmark")
