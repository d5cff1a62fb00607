"""`python -m alignlab` is `alignlab`."""

from alignlab.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
