"""What a command or an experiment does: the rooms of the library strung together.

`task` has the steps, and one module each the commands: `encode` (and bases), `run`, `train`, `evaluate`,
`analyze`, `heads`, `describe`.
"""
