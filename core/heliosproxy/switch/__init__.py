"""The data plane: sessions, links, pools and the reactor, and the path from a statement to its flow."""
