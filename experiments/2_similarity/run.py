"""Experiment 2: which heads keep their principal components on other data.

    python experiments/2_similarity/run.py                                  # what ships
    python experiments/2_similarity/run.py --cfg experiments/2_similarity/paper.gin

The same as `residual experiment 2`, whose `--help` lists the options.
"""

import sys

from residual.cli import main

sys.argv[1:1] = ["experiment", "2"]
main()
