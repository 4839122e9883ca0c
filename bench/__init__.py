"""How fast bootsplice is, and its peers: `python -m bench`, see docs/performance.md."""
