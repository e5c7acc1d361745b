"""heliosproxy.toml: typed, checked, every mistake reported at once with its line and column.

`model.py` is the schema, `load.py` the way in.
"""
