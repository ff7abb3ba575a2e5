"""`python -m hvdtools`, for where the command is not on PATH."""

from hvdtools.cli import main

if __name__ == "__main__":
    main()
