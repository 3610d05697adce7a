# remove the job Demo_sweep-20261126-041522
kubectl --namespace=default delete rayjob/demo-sweep-20261126-041522-f1822793 --ignore-not-found --wait --timeout=5m
# remove the specification of Demo_sweep-20261126-041522
kubectl --namespace=default delete configmap/demo-sweep-20261126-041522-f1822793 --ignore-not-found --wait --timeout=5m
rm -f /FOLDER/state/Demo_sweep-20261126-041522.yaml
# remove jobs and cluster
kubectl --namespace=default delete rayjobs.ray.io,rayclusters.ray.io --selector=app.kubernetes.io/instance=cifake-kubernetes --ignore-not-found --wait --timeout=5m
# remove accounts, policies and specifications
kubectl --namespace=default delete serviceaccounts,networkpolicies,configmaps --selector=app.kubernetes.io/instance=cifake-kubernetes --ignore-not-found --wait --timeout=5m
# remove secrets
kubectl --namespace=default delete secrets cifake-kubernetes-token cifake-kubernetes-environment --ignore-not-found --wait --timeout=5m
