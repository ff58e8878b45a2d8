"""Extra study: do heads write the same directions into the class token and into patches?

    python experiments/class_token/run.py                                  # what ships
    python experiments/class_token/run.py --cfg experiments/class_token/paper.gin

The same as `residual experiment class-token`, whose `--help` lists the options.
"""

import sys

from residual.cli import main

sys.argv[1:1] = ["experiment", "class-token"]
main()
