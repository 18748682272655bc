"""Labelling: pictures in, a data set out, by an engine in this process or a server."""
