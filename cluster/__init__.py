"""Starting, checking and planning a cluster. Start at `launch.py`. May import everything but the command line."""
