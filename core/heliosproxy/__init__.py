"""HeliosProxy: a PostgreSQL proxy whose features are sandboxed WebAssembly plugins."""

__version__ = "0.1.0"
