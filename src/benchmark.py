"""`python src/benchmark.py` is `reslab benchmark`, without an installation of the command."""

from reslab.commands.benchmark import main

if __name__ == "__main__":
    main()
