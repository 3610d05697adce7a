"""Architectures, attention modules and where they are put."""
