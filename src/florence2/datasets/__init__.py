"""Data sets: questions about pictures with their answers, read from the files in which people have them; needs no torch."""
