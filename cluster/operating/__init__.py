"""Start, watch, drain and stop a cluster of machines that a launch description names, over SSH."""
