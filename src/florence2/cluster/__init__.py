"""Beyond one machine: the server as an application of Ray Serve, and labelling on Ray Data.

The ingress is the application of one machine (``server.app``); engines are replicas that have its other half. Ray schedules, routes, scales
and restarts. Nothing else in the package imports Ray.
"""
