"""The images that a command is given: words become inputs (``find``, ``lists``, ``urls``), and inputs become pictures (``pictures``)."""
