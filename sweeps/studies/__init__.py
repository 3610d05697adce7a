"""The sweeps that ship, as YAML."""
