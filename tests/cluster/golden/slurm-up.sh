rm -f /shared/mine/cluster/number
rm -f /shared/mine/cluster/extra-number
rm -f /shared/mine/cluster/code
rm -f /shared/mine/cluster/stopped
rm -f /shared/mine/cluster/requeued
# make a token that the cluster asks for
sh -c 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null' sh /shared/mine/cluster/home env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME=/shared/mine/cluster/home RAY_AUTH_MODE=token python -m ray.scripts.scripts get-auth-token --generate
# bring the secrets to the job's folder, for this user alone
install -m 600 /home/me/keys /shared/mine/cluster/secrets
cat > /shared/mine/cluster/on-head <<'END'
#!/bin/bash -l
export AWS_REGION=eu-central-1
export NOTE='it'"'"'s here'
export TMPDIR=/local/scratch
module load cuda/12.4
source "$HOME/venv/bin/activate"
test -e /local/scratch/cifake-slurm-$SLURM_JOB_ID-0/node.json || { echo "Ray is being started" >&2; exit 75; }
exec /opt/python -m cluster.node exec /local/scratch/cifake-slurm-$SLURM_JOB_ID-0 "$@"
END
chmod 755 /shared/mine/cluster/on-head
cat > /shared/mine/cluster/job.sbatch <<'END'
#!/bin/bash -l
#SBATCH --job-name=cluster-mine
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:2
#SBATCH --mem=64G
#SBATCH --time=1-12:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --output=/shared/mine/cluster/log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@300
#SBATCH --chdir=/shared/mine/cluster
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
exec /opt/python -m cluster.slurm.allocation /shared/mine/cluster --port=7000 --requeues=7 --notice=300
END
# hand the job to Slurm
sh -c 'sbatch --parsable "$1" > "$2.new" && mv "$2.new" "$2"' sh /shared/mine/cluster/job.sbatch /shared/mine/cluster/number
cat > /shared/mine/cluster/extra.sbatch <<'END'
#!/bin/bash -l
#SBATCH --job-name=cluster-mine-extra
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
#SBATCH --output=/shared/mine/cluster/extra-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --chdir=/shared/mine/cluster
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
exec /opt/python -m cluster.slurm.member /shared/mine/cluster --joins
END
# hand the nodes that join to Slurm
sh -c 'sbatch --parsable --dependency="after:$(cut -d";" -f1 "$3")" "$1" > "$2.new" && mv "$2.new" "$2"' sh /shared/mine/cluster/extra.sbatch /shared/mine/cluster/extra-number /shared/mine/cluster/number
# wait until Slurm has started the cluster
python -m cluster.slurm.attend usable /shared/mine/cluster
