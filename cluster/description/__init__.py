"""The launch description: the one file from which a cluster is started and its manifests are rendered."""
