"""Experiment 4: what each method makes of an encoder, dataset by dataset: the paper's main table.

    python experiments/4_adapters/run.py                                  # what ships
    python experiments/4_adapters/run.py --cfg experiments/4_adapters/paper.gin

The same as `residual experiment 4`, whose `--help` lists the options.
"""

import sys

from residual.cli import main

sys.argv[1:1] = ["experiment", "4"]
main()
