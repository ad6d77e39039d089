"""`python -m lentigo`, which torchrun needs."""

from lentigo.cli.app import main

if __name__ == "__main__":
    main()
