"""Kubernetes manifests that serve the exported models of a folder, with memory from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kcost.core.serving import Batching
from kcost.ship.server_files import SERVER_ARGUMENTS, SERVING_IMAGE, signed

KUBERNETES_FILE, DOCKERFILE = "kubernetes.yaml", "Dockerfile"

KUBERNETES_VERSION = "1.34"
"""Whose schemas a test holds the manifests to. Each kind in them is a stable one since 1.25 at the latest."""

MEMORY_MARGIN = 1.5
"""A pod may use this many times what the models took when they were checked: requests that run at the same time need
room of their own. Assumed, not measured."""

ASSUMED_BUSY_PERCENT, ASSUMED_CORES = 60, 2
"""Where no run says at which load the p99 holds, and on how many threads."""

HEADROOM = 0.8
"""A pod is kept at this part of the load at which the p99 still holds: a new one takes time to come."""

_MIB = 1 << 20
_STEP_MIB = 64

DOCKER = f"""\
# Written by kcost, once: change it as you like. It puts the models of this folder into an image:
#   docker build -t REGISTRY/kcost-serving:TAG . && docker push REGISTRY/kcost-serving:TAG
FROM {SERVING_IMAGE}
COPY . /models/
"""


class ServedModel(NamedTuple):
    """A model of the folder."""

    name: str
    peak_bytes: int
    """Of its served versions together: most resident memory of the processes that checked them."""
    batching: Batching | None
    """Of its latest version; None where its requests are not put together."""


def manifests(models: Sequence[ServedModel]) -> str:
    """Deployment, Service, autoscaler and disruption budget, as YAML of four documents.

    kcost writes them anew at each export until a person changes them: see `server_files.is_own`.

    Args:
        models: one at least; probes ask for the first by name.
    """
    first = min(models, key=lambda model: model.name).name
    memory = memory_mib(models)
    batchings = [model.batching for model in models if model.batching is not None]
    cores = max((b.threads for b in batchings if b.threads), default=ASSUMED_CORES)
    if batchings:
        busy = max(1, math.floor(HEADROOM * min(b.busy_percent for b in batchings)))
        busy_because = f"{HEADROOM:g} of the load at which a replica still holds the p99, simulated from measured steps"
        least, most = max(2, max(b.replicas for b in batchings)), max(4, 2 * max(b.replicas for b in batchings))
        replicas_because = "what the traffic takes that the export was told of; at most twice that"
    else:
        busy, least, most = ASSUMED_BUSY_PERCENT, 2, 10
        busy_because = "assumed: export with --run, --qps and --p99-ms to have it from a measurement"
        replicas_because = "assumed"
    arguments = (
        *SERVER_ARGUMENTS,
        f"--tensorflow_intra_op_parallelism={cores}",
        f"--tensorflow_inter_op_parallelism={cores}",
    )
    return signed(
        _TEMPLATE.format(
            image="kcost-serving:1",
            arguments="".join(f"            - {argument}\n" for argument in arguments),
            model=first,
            cores=cores,
            memory=memory,
            measured=math.ceil(sum(model.peak_bytes for model in models) / _MIB),
            margin=MEMORY_MARGIN,
            busy=busy,
            busy_because=busy_because,
            least=least,
            most=most,
            replicas_because=replicas_because,
        )
    )


def memory_mib(models: Sequence[ServedModel]) -> int:
    """What a pod may use: the models' measured memory with room for requests that run at the same time, MiB."""
    wanted = MEMORY_MARGIN * sum(model.peak_bytes for model in models) / _MIB
    return math.ceil(wanted / _STEP_MIB) * _STEP_MIB


_TEMPLATE = """\
# Build the image first: see Dockerfile. Then, without changing this file:
#   kubectl apply -f kubernetes.yaml
#   kubectl set image deployment/kcost-serving serving=REGISTRY/kcost-serving:TAG
# TensorFlow Serving asks nobody for a password: keep the Service inside of the cluster, behind what authenticates.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: kcost-serving
  labels: {{app.kubernetes.io/name: kcost-serving}}
spec:
  # No number of replicas: the autoscaler below sets it.
  selector:
    matchLabels: {{app.kubernetes.io/name: kcost-serving}}
  strategy:
    type: RollingUpdate
    rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: kcost-serving}}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8501"
        prometheus.io/path: /monitoring/prometheus/metrics
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {{type: RuntimeDefault}}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{app.kubernetes.io/name: kcost-serving}}
      containers:
        - name: serving
          image: {image}
          args:
{arguments}          ports:
            - {{name: grpc, containerPort: 8500}}
            - {{name: http, containerPort: 8501}}
          # Metadata is answered when a version is loaded and warm, status as soon as the server listens.
          startupProbe:
            httpGet: {{path: /v1/models/{model}/metadata, port: http}}
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            httpGet: {{path: /v1/models/{model}/metadata, port: http}}
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
          livenessProbe:
            httpGet: {{path: /v1/models/{model}, port: http}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          lifecycle:
            # Time for the Service to send no more requests here.
            preStop:
              exec:
                command: [sleep, "5"]
          resources:
            # Memory: {measured} MiB were measured when the models were checked, times {margin:g} for requests that
            # run at the same time, which is assumed.
            # No limit of CPU: it would stop a batch in its middle. The threads are as many as the cores.
            requests: {{cpu: "{cores}", memory: {memory}Mi}}
            limits: {{memory: {memory}Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata:
  name: kcost-serving
  labels: {{app.kubernetes.io/name: kcost-serving}}
spec:
  selector: {{app.kubernetes.io/name: kcost-serving}}
  ports:
    - {{name: grpc, port: 8500, targetPort: grpc, appProtocol: grpc}}
    - {{name: http, port: 8501, targetPort: http, appProtocol: http}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: kcost-serving
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: kcost-serving}}
  # {replicas_because}
  minReplicas: {least}
  maxReplicas: {most}
  metrics:
    # The part of its time that a replica computes: what decides how long requests wait.
    # {busy}%: {busy_because}
    - type: Resource
      resource:
        name: cpu
        target: {{type: Utilization, averageUtilization: {busy}}}
  behavior:
    scaleDown: {{stabilizationWindowSeconds: 300}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: kcost-serving
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{app.kubernetes.io/name: kcost-serving}}
"""
