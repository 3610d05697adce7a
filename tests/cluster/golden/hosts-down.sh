# end the node and remove its folder on node1
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway node1 'if test -e .cache/cifake-sweeps/nodes/lab/node1/node.json; then (cd .cache/cifake-sweeps/nodes/lab/node1 && exec env-DIGEST/bin/python -m cluster.node down .); fi && rm -rf .cache/cifake-sweeps/nodes/lab/node1 && (rmdir .cache/cifake-sweeps/nodes/lab .cache/cifake-sweeps/nodes 2> /dev/null || true)'
# end the node and remove its folder on node2
ssh -T -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ProxyJump=gateway -p 2222 -l alice -i /keys/lab node2 'if test -e .cache/cifake-sweeps/nodes/lab/node2/node.json; then (cd .cache/cifake-sweeps/nodes/lab/node2 && exec env-DIGEST/bin/python -m cluster.node down .); fi && rm -rf .cache/cifake-sweeps/nodes/lab/node2 && (rmdir .cache/cifake-sweeps/nodes/lab .cache/cifake-sweeps/nodes 2> /dev/null || true)'
rm -rf STATE
