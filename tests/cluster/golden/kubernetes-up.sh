# make a token that the cluster asks for
sh -c 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null' sh /FOLDER/state/home env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME=/FOLDER/state/home RAY_AUTH_MODE=token PYTHON -m ray.scripts.scripts get-auth-token --generate
# keep the token as a Secret
sh -c '"$@" get secret cifake-kubernetes-token > /dev/null 2>&1 || "$@" create secret generic cifake-kubernetes-token --from-file=auth_token=/FOLDER/state/home/.ray/auth_token' kubectl kubectl --namespace=default
# keep the secrets as a Secret
sh -c 'PYTHON -m cluster.secret_file /FOLDER/secrets | "$@" create secret generic cifake-kubernetes-environment --from-env-file=/dev/stdin --dry-run=client -o yaml | "$@" apply --server-side --force-conflicts --filename=-' kubectl kubectl --namespace=default
cat > /FOLDER/state/cluster.yaml <<'END'
apiVersion: v1
kind: ServiceAccount
metadata:
  name: cifake-kubernetes
  namespace: default
  labels:
    app.kubernetes.io/instance: cifake-kubernetes
    app.kubernetes.io/part-of: cifake-sweeps
  annotations:
    eks.amazonaws.com/role-arn: arn:aws:iam::1:role/nodes
automountServiceAccountToken: false
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cifake-kubernetes
  namespace: default
  labels:
    app.kubernetes.io/instance: cifake-kubernetes
    app.kubernetes.io/part-of: cifake-sweeps
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/instance: cifake-kubernetes
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app.kubernetes.io/instance: cifake-kubernetes
  - from:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          app.kubernetes.io/name: kuberay-operator
    ports:
    - protocol: TCP
      port: 8265
---
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: cifake-kubernetes
  namespace: default
  labels:
    app.kubernetes.io/instance: cifake-kubernetes
    app.kubernetes.io/part-of: cifake-sweeps
spec:
  rayVersion: 2.60.0
  authOptions:
    mode: token
    secretName: cifake-kubernetes-token
  enableInTreeAutoscaling: true
  autoscalerOptions:
    version: v2
    idleTimeoutSeconds: 300
    resources:
      requests:
        cpu: 500m
        memory: 1Gi
      limits:
        cpu: 500m
        memory: 1Gi
    securityContext:
      allowPrivilegeEscalation: false
      capabilities:
        drop:
        - ALL
      runAsNonRoot: true
    env:
    - name: RAY_AUTH_MODE
      value: token
    - name: RAY_JOB_STOP_SIGNAL
      value: SIGINT
    - name: RAY_JOB_STOP_WAIT_TIME_S
      value: '30'
    - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
      value: '0'
    - name: RAY_START_HOOK
      value: cluster.ray_start.without_client
    - name: RAY_enable_metrics_collection
      value: '0'
    - name: DASHBOARD_METRIC_PORT
      value: '-1'
    - name: AUTOSCALER_METRIC_PORT
      value: '-1'
  headGroupSpec:
    rayStartParams:
      object-store-memory: '83886080'
      disable-usage-stats: 'true'
      port: '6379'
      dashboard-host: 127.0.0.1
      dashboard-port: '8265'
      num-cpus: '0'
      num-gpus: '0'
    template:
      metadata:
        labels:
          app.kubernetes.io/instance: cifake-kubernetes
      spec:
        serviceAccountName: cifake-kubernetes
        automountServiceAccountToken: true
        enableServiceLinks: false
        terminationGracePeriodSeconds: 60
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          runAsGroup: 1000
          fsGroup: 1000
          fsGroupChangePolicy: OnRootMismatch
          seccompProfile:
            type: RuntimeDefault
        containers:
        - name: ray-head
          image: registry.example.org/cifake-sweeps:0.1.0
          env:
          - name: AWS_REGION
            value: eu-central-1
          - name: RAY_AUTH_MODE
            value: token
          - name: RAY_JOB_STOP_SIGNAL
            value: SIGINT
          - name: RAY_JOB_STOP_WAIT_TIME_S
            value: '30'
          - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
            value: '0'
          - name: RAY_START_HOOK
            value: cluster.ray_start.without_client
          - name: RAY_enable_metrics_collection
            value: '0'
          - name: DASHBOARD_METRIC_PORT
            value: '-1'
          - name: AUTOSCALER_METRIC_PORT
            value: '-1'
          - name: RAY_API_SERVER_ADDRESS
            value: http://127.0.0.1:8265
          - name: CIFAKE_CACHE
            value: /var/cache/cifake
          - name: CIFAKE_JOBS
            value: /tmp/cifake-jobs
          envFrom:
          - secretRef:
              name: cifake-kubernetes-environment
          resources:
            requests:
              cpu: '2'
              memory: 8Gi
            limits:
              cpu: '2'
              memory: 8Gi
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
              - ALL
            runAsNonRoot: true
          volumeMounts:
          - name: packs
            mountPath: /var/cache/cifake
          - name: claim-0
            mountPath: /data
          - name: claim-1
            mountPath: /store
        volumes:
        - name: packs
          hostPath:
            path: /var/lib/cifake
            type: Directory
        - name: claim-0
          persistentVolumeClaim:
            claimName: cifake-data
        - name: claim-1
          persistentVolumeClaim:
            claimName: cifake-store
        imagePullSecrets:
        - name: registry
  workerGroupSpecs:
  - groupName: cpu
    replicas: 1
    minReplicas: 1
    maxReplicas: 20
    rayStartParams:
      object-store-memory: '83886080'
      disable-usage-stats: 'true'
    template:
      metadata:
        labels:
          app.kubernetes.io/instance: cifake-kubernetes
      spec:
        serviceAccountName: cifake-kubernetes
        automountServiceAccountToken: false
        enableServiceLinks: false
        terminationGracePeriodSeconds: 60
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          runAsGroup: 1000
          fsGroup: 1000
          fsGroupChangePolicy: OnRootMismatch
          seccompProfile:
            type: RuntimeDefault
        containers:
        - name: ray-worker
          image: registry.example.org/cifake-sweeps:0.1.0
          env:
          - name: AWS_REGION
            value: eu-central-1
          - name: RAY_AUTH_MODE
            value: token
          - name: RAY_JOB_STOP_SIGNAL
            value: SIGINT
          - name: RAY_JOB_STOP_WAIT_TIME_S
            value: '30'
          - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
            value: '0'
          - name: RAY_START_HOOK
            value: cluster.ray_start.without_client
          - name: RAY_enable_metrics_collection
            value: '0'
          - name: DASHBOARD_METRIC_PORT
            value: '-1'
          - name: AUTOSCALER_METRIC_PORT
            value: '-1'
          - name: RAY_API_SERVER_ADDRESS
            value: http://127.0.0.1:8265
          - name: CIFAKE_CACHE
            value: /var/cache/cifake
          - name: CIFAKE_JOBS
            value: /tmp/cifake-jobs
          envFrom:
          - secretRef:
              name: cifake-kubernetes-environment
          resources:
            requests:
              cpu: '8'
              memory: 16Gi
            limits:
              cpu: '8'
              memory: 16Gi
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
              - ALL
            runAsNonRoot: true
          volumeMounts:
          - name: packs
            mountPath: /var/cache/cifake
          - name: claim-0
            mountPath: /data
          - name: claim-1
            mountPath: /store
        volumes:
        - name: packs
          hostPath:
            path: /var/lib/cifake
            type: Directory
        - name: claim-0
          persistentVolumeClaim:
            claimName: cifake-data
        - name: claim-1
          persistentVolumeClaim:
            claimName: cifake-store
        imagePullSecrets:
        - name: registry
        nodeSelector:
          cloud.google.com/gke-spot: 'true'
        tolerations:
        - key: cloud.google.com/gke-spot
          operator: Equal
          value: 'true'
          effect: NoSchedule
  - groupName: gpu
    replicas: 0
    minReplicas: 0
    maxReplicas: 8
    rayStartParams:
      object-store-memory: '83886080'
      disable-usage-stats: 'true'
    template:
      metadata:
        labels:
          app.kubernetes.io/instance: cifake-kubernetes
      spec:
        serviceAccountName: cifake-kubernetes
        automountServiceAccountToken: false
        enableServiceLinks: false
        terminationGracePeriodSeconds: 60
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          runAsGroup: 1000
          fsGroup: 1000
          fsGroupChangePolicy: OnRootMismatch
          seccompProfile:
            type: RuntimeDefault
        containers:
        - name: ray-worker
          image: registry.example.org/cifake-sweeps:0.1.0
          env:
          - name: AWS_REGION
            value: eu-central-1
          - name: RAY_AUTH_MODE
            value: token
          - name: RAY_JOB_STOP_SIGNAL
            value: SIGINT
          - name: RAY_JOB_STOP_WAIT_TIME_S
            value: '30'
          - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
            value: '0'
          - name: RAY_START_HOOK
            value: cluster.ray_start.without_client
          - name: RAY_enable_metrics_collection
            value: '0'
          - name: DASHBOARD_METRIC_PORT
            value: '-1'
          - name: AUTOSCALER_METRIC_PORT
            value: '-1'
          - name: RAY_API_SERVER_ADDRESS
            value: http://127.0.0.1:8265
          - name: CIFAKE_CACHE
            value: /var/cache/cifake
          - name: CIFAKE_JOBS
            value: /tmp/cifake-jobs
          envFrom:
          - secretRef:
              name: cifake-kubernetes-environment
          resources:
            requests:
              cpu: '8'
              memory: 32Gi
              nvidia.com/gpu: '1'
            limits:
              cpu: '8'
              memory: 32Gi
              nvidia.com/gpu: '1'
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
              - ALL
            runAsNonRoot: true
          volumeMounts:
          - name: packs
            mountPath: /var/cache/cifake
          - name: claim-0
            mountPath: /data
          - name: claim-1
            mountPath: /store
        volumes:
        - name: packs
          hostPath:
            path: /var/lib/cifake
            type: Directory
        - name: claim-0
          persistentVolumeClaim:
            claimName: cifake-data
        - name: claim-1
          persistentVolumeClaim:
            claimName: cifake-store
        imagePullSecrets:
        - name: registry
        tolerations:
        - key: nvidia.com/gpu
          operator: Exists
          effect: NoSchedule
END
# make the cluster cifake-kubernetes
kubectl --namespace=default apply --filename=/FOLDER/state/cluster.yaml
# wait for its head
until kubectl --namespace=default wait --for=condition=HeadPodReady raycluster/cifake-kubernetes --timeout=10s; do sleep 1; done  # 900 s at most
