cat > /shared/mine/jobs/placements-20261126-120000/placements.yaml <<'END'
name: placements
epochs: [1]
END
cat > /shared/mine/jobs/placements-20261126-120000/job.json <<'END'
{
  "job": "placements-20261126-120000",
  "file": "placements.yaml",
  "spec": "name: placements\nepochs: [1]\n",
  "store": "s3://bucket/runs",
  "arguments": [
    "--store",
    "s3://bucket/runs"
  ]
}
END
rm -f /shared/mine/jobs/placements-20261126-120000/number
rm -f /shared/mine/jobs/placements-20261126-120000/extra-number
rm -f /shared/mine/jobs/placements-20261126-120000/code
rm -f /shared/mine/jobs/placements-20261126-120000/stopped
rm -f /shared/mine/jobs/placements-20261126-120000/requeued
# make a token that the cluster asks for
sh -c 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null' sh /shared/mine/jobs/placements-20261126-120000/home env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME=/shared/mine/jobs/placements-20261126-120000/home RAY_AUTH_MODE=token python -m ray.scripts.scripts get-auth-token --generate
# bring the secrets to the job's folder, for this user alone
install -m 600 /home/me/keys /shared/mine/jobs/placements-20261126-120000/secrets
cat > /shared/mine/jobs/placements-20261126-120000/on-head <<'END'
#!/bin/bash -l
export AWS_REGION=eu-central-1
export NOTE='it'"'"'s here'
export TMPDIR=/local/scratch
module load cuda/12.4
source "$HOME/venv/bin/activate"
test -e /local/scratch/cifake-slurm-$SLURM_JOB_ID-0/node.json || { echo "Ray is being started" >&2; exit 75; }
exec /opt/python -m cluster.node exec /local/scratch/cifake-slurm-$SLURM_JOB_ID-0 "$@"
END
chmod 755 /shared/mine/jobs/placements-20261126-120000/on-head
cat > /shared/mine/jobs/placements-20261126-120000/job.sbatch <<'END'
#!/bin/bash -l
#SBATCH --job-name=placements-20261126-120000
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:2
#SBATCH --mem=64G
#SBATCH --time=1-12:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --output=/shared/mine/jobs/placements-20261126-120000/log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@300
#SBATCH --chdir=/shared/mine/jobs/placements-20261126-120000
#SBATCH --export=NONE
#SBATCH --constraint=ib
#SBATCH --mail-type=END

# Made by `cluster` of a profile; a change here is lost.
umask 077
export SLURM_EXPORT_ENV=ALL
ulimit -Sn "$(ulimit -Hn)"
export AWS_REGION=eu-central-1
export NOTE='it'"'"'s here'
export TMPDIR=/local/scratch
module load cuda/12.4
source "$HOME/venv/bin/activate"
trap '' USR1 USR2  # until they are listened for
exec /opt/python -m cluster.slurm.allocation /shared/mine/jobs/placements-20261126-120000 --port=7000 --requeues=7 --notice=300
END
# hand the job to Slurm
sh -c 'sbatch --parsable "$1" > "$2.new" && mv "$2.new" "$2"' sh /shared/mine/jobs/placements-20261126-120000/job.sbatch /shared/mine/jobs/placements-20261126-120000/number
cat > /shared/mine/jobs/placements-20261126-120000/extra.sbatch <<'END'
#!/bin/bash -l
#SBATCH --job-name=placements-20261126-120000-extra
#SBATCH --array=1-16
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:2
#SBATCH --mem=64G
#SBATCH --time=1-12:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --output=/shared/mine/jobs/placements-20261126-120000/extra-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --chdir=/shared/mine/jobs/placements-20261126-120000
#SBATCH --export=NONE
#SBATCH --constraint=ib
#SBATCH --mail-type=END

# Made by `cluster` of a profile; a change here is lost.
umask 077
export SLURM_EXPORT_ENV=ALL
ulimit -Sn "$(ulimit -Hn)"
export AWS_REGION=eu-central-1
export NOTE='it'"'"'s here'
export TMPDIR=/local/scratch
module load cuda/12.4
source "$HOME/venv/bin/activate"
trap '' USR1 USR2  # until they are listened for
exec /opt/python -m cluster.slurm.member /shared/mine/jobs/placements-20261126-120000 --joins
END
# hand the nodes that join to Slurm
sh -c 'sbatch --parsable --dependency="after:$(cut -d";" -f1 "$3")" "$1" > "$2.new" && mv "$2.new" "$2"' sh /shared/mine/jobs/placements-20261126-120000/extra.sbatch /shared/mine/jobs/placements-20261126-120000/extra-number /shared/mine/jobs/placements-20261126-120000/number
