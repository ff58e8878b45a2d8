"""Experiment 1: how many dimensions the contributions of heads and MLPs have, by layer.

    python experiments/1_dimension/run.py                                  # what ships
    python experiments/1_dimension/run.py --cfg experiments/1_dimension/paper.gin

The same as `residual experiment 1`, whose `--help` lists the options.
"""

import sys

from residual.cli import main

sys.argv[1:1] = ["experiment", "1"]
main()
