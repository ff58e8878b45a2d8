"""A store explored: every answer that the explorer's page asks for, in coordinates as far as they go.

`parts` holds what is made once (bases, classifier, dictionary, encoder), each other module one kind of
answer, and `exploration` all of them.
"""

from residual.workflows.exploration.exploration import Exploration
from residual.workflows.exploration.parts import Parts, Sources

__all__ = ["Exploration", "Parts", "Sources"]
