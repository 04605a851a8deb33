"""`python src/predict.py` is `reslab predict`, without an installation of the command."""

from reslab.commands.predict import main

if __name__ == "__main__":
    main()
