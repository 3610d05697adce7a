cat > STATE/profile.json <<'END'
{
  "launcher": "hosts",
  "description": "two machines",
  "store": "s3://bucket/sweeps",
  "data": [],
  "port": 6379,
  "dashboard_port": 8265,
  "environment": {
    "AWS_REGION": "eu-north-1"
  },
  "secrets": "/secrets/aws",
  "hosts": [
    {
      "host": "node1",
      "address": "10.0.0.1",
      "user": null,
      "ssh_port": null,
      "identity_file": null,
      "cpus": 0,
      "gpus": null
    },
    {
      "host": "node2",
      "address": null,
      "user": "alice",
      "ssh_port": 2222,
      "identity_file": "/keys/lab",
      "cpus": null,
      "gpus": 2
    }
  ],
  "user": null,
  "ssh_port": null,
  "identity_file": null,
  "ssh_options": [
    "ProxyJump=gateway"
  ],
  "folder": ".cache/cifake-sweeps/nodes",
  "python": null,
  "base_python": "python3",
  "pip": [
    "--index-url=https://index.example"
  ]
}
END
# make a wheel of the project, and list its packages
PYTHON -m cluster.bundle STATE/project.tar
# make a token that the cluster asks for
sh -c 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null' sh STATE/home env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME=STATE/home RAY_AUTH_MODE=token PYTHON -m ray.scripts.scripts get-auth-token --generate
cat > STATE/node1.json <<'END'
{
  "name": "node1",
  "mark": "MARK",
  "head": true,
  "address": "10.0.0.1:6379",
  "dashboard_port": 8265,
  "ip": null,
  "cpus": 0,
  "gpus": null,
  "environment": {
    "AWS_REGION": "eu-north-1"
  },
  "code": "DIGEST"
}
END
cat > STATE/node2.json <<'END'
{
  "name": "node2",
  "mark": "MARK",
  "head": false,
  "address": "10.0.0.1:6379",
  "dashboard_port": 8265,
  "ip": null,
  "cpus": null,
  "gpus": 2,
  "environment": {
    "AWS_REGION": "eu-north-1"
  },
  "code": "DIGEST"
}
END
# write token on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node1 && cd .cache/cifake-sweeps/nodes/lab/node1 && cat > token.new && mv token.new token' < STATE/home/.ray/auth_token
# write secrets on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node1 && cd .cache/cifake-sweeps/nodes/lab/node1 && cat > secrets.new && mv secrets.new secrets' < /secrets/aws
# write node.json on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node1 && cd .cache/cifake-sweeps/nodes/lab/node1 && cat > node.json.new && mv node.json.new node.json' < STATE/node1.json
# write project.tar on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node1 && cd .cache/cifake-sweeps/nodes/lab/node1 && cat > project.tar.new && mv project.tar.new project.tar' < STATE/project.tar
# install the project, unless it is there, on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'cd .cache/cifake-sweeps/nodes/lab/node1 && tar -xf project.tar && (test -e env-DIGEST/ready || (python3 -m venv --clear env-DIGEST && env-DIGEST/bin/python -m pip install --quiet --disable-pip-version-check --index-url=https://index.example -c constraints.txt '"'"'./WHEEL[cluster]'"'"' && touch env-DIGEST/ready))'
# write token on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node2 && cd .cache/cifake-sweeps/nodes/lab/node2 && cat > token.new && mv token.new token' < STATE/home/.ray/auth_token
# write secrets on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node2 && cd .cache/cifake-sweeps/nodes/lab/node2 && cat > secrets.new && mv secrets.new secrets' < /secrets/aws
# write node.json on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node2 && cd .cache/cifake-sweeps/nodes/lab/node2 && cat > node.json.new && mv node.json.new node.json' < STATE/node2.json
# write project.tar on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'umask 077 && mkdir -p .cache/cifake-sweeps/nodes/lab/node2 && cd .cache/cifake-sweeps/nodes/lab/node2 && cat > project.tar.new && mv project.tar.new project.tar' < STATE/project.tar
# install the project, unless it is there, on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'cd .cache/cifake-sweeps/nodes/lab/node2 && tar -xf project.tar && (test -e env-DIGEST/ready || (python3 -m venv --clear env-DIGEST && env-DIGEST/bin/python -m pip install --quiet --disable-pip-version-check --index-url=https://index.example -c constraints.txt '"'"'./WHEEL[cluster]'"'"' && touch env-DIGEST/ready))'
# start the head on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'cd .cache/cifake-sweeps/nodes/lab/node1 && exec env-DIGEST/bin/python -m cluster.node up .'
# start the worker on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'cd .cache/cifake-sweeps/nodes/lab/node2 && exec env-DIGEST/bin/python -m cluster.node up .'
cat > STATE/up <<'END'

END
