"""Beyond one machine: the server as a Ray Serve application, labelling on Ray Data. Needs the extra ``cluster``."""
