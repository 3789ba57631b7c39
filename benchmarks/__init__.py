"""Benchmarks of umlbuild against what one would type by hand: `python -m benchmarks --help`."""
