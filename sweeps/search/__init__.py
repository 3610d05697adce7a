"""The specification's search as an Optuna study: what to try, when to stop, what came of it."""
