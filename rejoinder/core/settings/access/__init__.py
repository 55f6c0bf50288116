"""Settings of what strangers may do: limits of a connection, keys, and origins of web pages."""
