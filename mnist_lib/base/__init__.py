"""Errors, files, downloads, arrays, tables, the machine: independent of nets and recipes."""

__version__ = "1.0.0"
