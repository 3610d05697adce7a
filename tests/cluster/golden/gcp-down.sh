# remove the machines
sh -c 'test ! -e /FOLDER/state/cluster.yaml || env RAY_UP_enable_autoscaler_v2=0 PYTHON -m ray.scripts.scripts down --yes /FOLDER/state/cluster.yaml'
