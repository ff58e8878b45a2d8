"""Where work runs: in this process, in several of this machine, or on a cluster, by one interface."""

from residual.libraries import lazily

__all__ = ["ClusterExecutor", "Executor", "ProcessExecutor", "executor_of", "opened"]

__getattr__ = lazily(__name__, ("executor", "processes", "cluster"), __all__)
