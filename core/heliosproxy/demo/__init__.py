"""A real PostgreSQL cluster on this machine, and the demo that puts the proxy in front of it."""
