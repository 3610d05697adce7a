"""The science of CIFAKE: data sets, models, training, evaluation and the tables they fill.

Nothing here knows Ray, Optuna or sweeps.
"""

from importlib.metadata import version

__version__ = version("cifake-sweeps")
