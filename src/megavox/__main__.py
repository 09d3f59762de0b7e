"""`python -m megavox`, which torchrun needs."""

from megavox.cli import run

if __name__ == "__main__":
    run()
