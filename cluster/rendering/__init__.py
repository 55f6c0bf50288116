"""What is rendered from a launch description: node start scripts, `ray up` files and Kubernetes manifests."""
