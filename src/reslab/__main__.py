"""`python -m reslab train …` is the command `reslab train …`."""

from reslab.commands.main import main

if __name__ == "__main__":
    main()
