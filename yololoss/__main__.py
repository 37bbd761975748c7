"""``python -m yololoss``: the command line."""

from yololoss.harness.cli import main

if __name__ == "__main__":
    main()
