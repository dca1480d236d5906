"""`python -m pycaffe`: the command `caffe`, where scripts of the environment are not on the path."""

from __future__ import annotations

from pycaffe.cli import main

if __name__ == "__main__":  # spawned workers import this module, too
    main()
