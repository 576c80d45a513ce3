"""`python -m semid`."""

from semid.cli import main

if __name__ == "__main__":
    main()
