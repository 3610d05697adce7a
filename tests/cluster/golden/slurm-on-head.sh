#!/bin/bash -l
export AWS_REGION=eu-central-1
export NOTE='it'"'"'s here'
export TMPDIR=/local/scratch
module load cuda/12.4
source "$HOME/venv/bin/activate"
test -e /local/scratch/cifake-slurm-$SLURM_JOB_ID-0/node.json || { echo "Ray is being started" >&2; exit 75; }
exec /opt/python -m cluster.node exec /local/scratch/cifake-slurm-$SLURM_JOB_ID-0 "$@"
