"""``python -m comet_rec``: the command line."""

from comet_rec.cli.app import main

if __name__ == "__main__":
    main()
