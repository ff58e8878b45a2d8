"""Experiment 3: which heads a task needs, what is left without the others, and what texts say of them.

    python experiments/3_heads/run.py                                  # what ships
    python experiments/3_heads/run.py --cfg experiments/3_heads/paper.gin

The same as `residual experiment 3`, whose `--help` lists the options.
"""

import sys

from residual.cli import main

sys.argv[1:1] = ["experiment", "3"]
main()
