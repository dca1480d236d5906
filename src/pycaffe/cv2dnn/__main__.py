"""`python -m pycaffe.cv2dnn script.py args`: runs a script, or `-m module`, with the Caffe importer in `cv2.dnn`."""

from __future__ import annotations

import os
import runpy
import sys

from pycaffe.cv2dnn import install

USAGE = "usage: python -m pycaffe.cv2dnn script.py [args ...]\n       python -m pycaffe.cv2dnn -m module [args ...]"


def main() -> None:
    """Runs what `sys.argv` names as `python` itself would: its name is `__main__`, its arguments are `sys.argv`."""
    arguments = sys.argv[1:]
    as_module = arguments[:1] == ["-m"]
    if as_module:
        del arguments[0]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(USAGE if not arguments else print(USAGE))
    install()
    sys.argv = arguments
    if as_module:
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
