"""Benchmarks of HeliosProxy against its peers and its own targets: `python -m benchmarks NAME…`.

docs/performance.md says what each one measures.
"""
