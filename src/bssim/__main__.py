"""``python -m bssim`` is the ``bssim`` command."""

from bssim.experiments.cli import main

if __name__ == "__main__":
    main()
