"""`python -m sftjob.cli`: the same as `sftjob`."""

from sftjob.cli import main

if __name__ == "__main__":
    main()
