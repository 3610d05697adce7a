"""Ray clusters inside Slurm's allocations."""
