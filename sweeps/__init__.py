"""Sweeps: from a specification to trained runs, tables and a report."""
