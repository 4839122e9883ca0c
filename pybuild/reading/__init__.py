"""Reads images that bootsplice built: what is in them, where, and whether it is still whole."""
