# make a token that the cluster asks for
sh -c 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null' sh /FOLDER/state/home env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME=/FOLDER/state/home RAY_AUTH_MODE=token PYTHON -m ray.scripts.scripts get-auth-token --generate
# make the cluster's key
sh -c 'test -f /FOLDER/state/key || ssh-keygen -q -t ed25519 -N "" -C cifake -f /FOLDER/state/key'
# pack the project
PYTHON -m cluster.bundle /FOLDER/state/project.tar
cat > /FOLDER/state/node.json <<'END'
{
  "name": "node",
  "mark": "node",
  "head": true,
  "address": "127.0.0.1:6379",
  "dashboard_port": 8265,
  "ip": null,
  "cpus": null,
  "gpus": null,
  "environment": {},
  "code": "CODE"
}
END
cat > /FOLDER/state/cluster.yaml.in <<'END'
cluster_name: cifake-gcp
provider:
  type: gcp
  region: europe-west4
  availability_zone: europe-west4-b
  project_id: my-project
  cache_stopped_nodes: false
  use_internal_ips: false
max_workers: 20
upscaling_speed: 100.0
idle_timeout_minutes: 5.0
auth:
  ssh_user: ubuntu
  ssh_private_key: /FOLDER/state/key
head_node_type: ray-head
available_node_types:
  ray-head:
    resources:
      CPU: 0
      GPU: 0
    min_workers: 0
    max_workers: 0
    node_config:
      machineType: n2-standard-2
      disks:
      - boot: true
        autoDelete: true
        type: PERSISTENT
        initializeParams:
          diskSizeGb: 100
          sourceImage: projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64
      metadata:
        items:
        - key: ssh-keys
          value: ubuntu:PUBLIC_KEY_OF_THIS_CLUSTER
        - key: block-project-ssh-keys
          value: 'true'
  cpu:
    resources:
      CPU: 22
    min_workers: 0
    max_workers: 16
    node_config:
      machineType: c3-highcpu-22
      disks:
      - boot: true
        autoDelete: true
        type: PERSISTENT
        initializeParams:
          diskSizeGb: 100
          sourceImage: projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64
      metadata:
        items:
        - key: ssh-keys
          value: ubuntu:PUBLIC_KEY_OF_THIS_CLUSTER
        - key: block-project-ssh-keys
          value: 'true'
      serviceAccounts:
      - email: cifake-worker@my-project.iam.gserviceaccount.com
        scopes:
        - https://www.googleapis.com/auth/devstorage.read_write
      scheduling:
        provisioningModel: SPOT
        instanceTerminationAction: DELETE
        onHostMaintenance: TERMINATE
        automaticRestart: false
  gpu:
    resources:
      CPU: 4
      GPU: 1
    min_workers: 0
    max_workers: 4
    node_config:
      machineType: g2-standard-4
      disks:
      - boot: true
        autoDelete: true
        type: PERSISTENT
        initializeParams:
          diskSizeGb: 100
          sourceImage: projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580
      metadata:
        items:
        - key: ssh-keys
          value: ubuntu:PUBLIC_KEY_OF_THIS_CLUSTER
        - key: block-project-ssh-keys
          value: 'true'
      serviceAccounts:
      - email: cifake-worker@my-project.iam.gserviceaccount.com
        scopes:
        - https://www.googleapis.com/auth/devstorage.read_write
      scheduling:
        onHostMaintenance: TERMINATE
        provisioningModel: SPOT
        instanceTerminationAction: DELETE
        automaticRestart: false
file_mounts:
  /home/ubuntu/cifake/project.tar: /FOLDER/state/project.tar
  /home/ubuntu/cifake/node.json: /FOLDER/state/node.json
  /home/ubuntu/cifake/token: /FOLDER/state/home/.ray/auth_token
  /home/ubuntu/cifake/secrets: /FOLDER/secrets
cluster_synced_files: []
initialization_commands:
- cloud-init status --wait > /dev/null || true
setup_commands:
- chmod -f 600 /home/ubuntu/cifake/token /home/ubuntu/cifake/secrets || true
- test -x /home/ubuntu/cifake/uv/bin/uv || (sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y python3-venv rsync && python3 -m venv /home/ubuntu/cifake/uv && /home/ubuntu/cifake/uv/bin/pip install --quiet uv)
- test -x /home/ubuntu/cifake/env/bin/python || /home/ubuntu/cifake/uv/bin/uv venv --quiet --python VERSION /home/ubuntu/cifake/env
- tar -xf /home/ubuntu/cifake/project.tar -C /home/ubuntu/cifake
- cd /home/ubuntu/cifake && /home/ubuntu/cifake/uv/bin/uv pip install --quiet --python /home/ubuntu/cifake/env/bin/python --constraint constraints.txt './cifake_sweeps-0.1.0-py3-none-any.whl[cluster]' --reinstall-package=cifake-sweeps
head_setup_commands:
- cd /home/ubuntu/cifake && /home/ubuntu/cifake/uv/bin/uv pip install --quiet --python /home/ubuntu/cifake/env/bin/python --constraint constraints.txt google-api-python-client
worker_setup_commands: []
head_start_ray_commands:
- bash -c '< /dev/tcp/127.0.0.1/6379' 2> /dev/null || (/home/ubuntu/cifake/env/bin/python -m cluster.node exec /home/ubuntu/cifake -m ray.scripts.scripts stop; ulimit -n 65536; RAY_enable_autoscaler_v2=0 /home/ubuntu/cifake/env/bin/python -m cluster.node exec /home/ubuntu/cifake -m ray.scripts.scripts start --head --port=6379 --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port=8265 --dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0 --object-store-memory=83886080 --disable-usage-stats --num-cpus=0 --num-gpus=0 --autoscaling-config=~/ray_bootstrap_config.yaml && /home/ubuntu/cifake/env/bin/python -m cluster.node exec /home/ubuntu/cifake -m cluster.head resume)
worker_start_ray_commands:
- /home/ubuntu/cifake/env/bin/python -m cluster.node exec /home/ubuntu/cifake -m ray.scripts.scripts stop
- ulimit -n 65536; RAY_enable_autoscaler_v2=0 /home/ubuntu/cifake/env/bin/python -m cluster.node exec /home/ubuntu/cifake -m ray.scripts.scripts start --address=$RAY_HEAD_IP:6379 --dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0 --object-store-memory=83886080 --disable-usage-stats
END
# prepare what Ray's launcher is told
sh -c 'PUBLIC_KEY_OF_THIS_CLUSTER=$(cat /FOLDER/state/key.pub) && test -n "$PUBLIC_KEY_OF_THIS_CLUSTER" && sed -e "s|PUBLIC_KEY_OF_THIS_CLUSTER|$PUBLIC_KEY_OF_THIS_CLUSTER|g" /FOLDER/state/cluster.yaml.in > /FOLDER/state/cluster.yaml'
# make the head, which takes some minutes
sh -c '"$@" > /FOLDER/state/up.log 2>&1 || { tail -n 3 /FOLDER/state/up.log; echo "all that it said is in /FOLDER/state/up.log"; exit 1; }' sh env RAY_UP_enable_autoscaler_v2=0 PYTHON -m ray.scripts.scripts up --yes --no-config-cache /FOLDER/state/cluster.yaml
