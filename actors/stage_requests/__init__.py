"""The work of HTTP requests for single stages: over the same ports as calls, with retries, and cancelled with them."""
