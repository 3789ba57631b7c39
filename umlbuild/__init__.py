"""umlbuild: one TOML recipe in, one bootable User Mode Linux bundle out."""

__version__ = "0.1.0"
