"""`python -m residual`, the same as the command `residual`."""

from residual.cli import main

if __name__ == "__main__":
    main()
