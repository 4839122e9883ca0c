"""Runs flat binaries in unicorn and holds them to their contracts."""
