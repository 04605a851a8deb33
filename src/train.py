"""`python src/train.py` is `reslab train`, without an installation of the command."""

from reslab.commands.train import main

if __name__ == "__main__":
    main()
