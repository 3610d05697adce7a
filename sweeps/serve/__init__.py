"""The report of a sweep in a browser while it runs, for this machine alone."""

from sweeps.serve.command import serve_sweep

__all__ = ["serve_sweep"]
