"""Data sets: one file a source, one packed format, memory-mapped when used."""
