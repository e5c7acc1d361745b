"""Flows: what plugins decided, merged into one verdict, remembered. Pure: no clock, no sockets, no plugins."""
