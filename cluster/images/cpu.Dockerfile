# syntax=docker/dockerfile:1
# A node without GPUs, the head among them. Build it in the root of the checkout:
#   docker build -f cluster/images/cpu.Dockerfile -t REGISTRY/rejoinder-cpu:TAG .
# Not built where it was written: there was no Docker. Its steps are those of cluster/images/install.sh, which is tested.

# The same Python, patch release included, as in gpu.Dockerfile: Ray refuses nodes with another one.
ARG PYTHON_VERSION=3.11.14

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ENV PYTHON=python3.11
WORKDIR /src
# An index with CPU builds of torch keeps 2 GB of CUDA libraries out of the image (docs/getting-started.md).
ARG PIP_EXTRA_INDEX_URL=""
# The dependencies are a layer of their own, which a change of the code does not rebuild.
COPY pyproject.toml constraints.txt ./
COPY cluster/images/install.sh cluster/images/
RUN cluster/images/install.sh dependencies cpu /opt/rejoinder
COPY . .
RUN cluster/images/install.sh package /opt/rejoinder && cluster/images/install.sh check /opt/rejoinder

FROM python:${PYTHON_VERSION}-slim-bookworm
# procps: pods wait for their replicas with pgrep before they stop. wget: KubeRay's own probes.
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps wget libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash ray \
    && install -d -o ray -g ray /models
COPY --from=build /opt/rejoinder /opt/rejoinder
ENV PATH=/opt/rejoinder/bin:$PATH VIRTUAL_ENV=/opt/rejoinder PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/ray
VOLUME /models
# Port of Ray's dashboard agent, `ports.dashboard_agent` of the launch description. Kubernetes uses the probes of the pod.
ENV REJOINDER_AGENT_PORT=52365
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD wget -q -T 4 -O /dev/null "http://127.0.0.1:${REJOINDER_AGENT_PORT}/api/local_raylet_healthz"
CMD ["rejoinder", "--help"]
