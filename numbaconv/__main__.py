"""`python -m numbaconv` is the command line `numbaconv`."""

from numbaconv.cli import main

if __name__ == "__main__":
    main()
