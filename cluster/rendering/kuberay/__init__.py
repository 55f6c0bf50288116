"""Kubernetes manifests for the KubeRay operator."""
