"""What Ray Serve and HAProxy alone let through on this machine: the bound of ``benchmarks/cluster_ingress.py``.

The same cluster, clients and bodies; two ingresses that read the body and pass it on, two replicas that answer at once. Nothing is checked,
decoded, routed by model or counted. What is missing here is what the server's own part of an ingress costs.

    python -m benchmarks.cluster_bound
"""

import argparse
from typing import Any

from fastapi import FastAPI, Request, Response

from benchmarks import report
from benchmarks.cluster_ingress import bodies, loaded
from benchmarks.clustered import Clustered
from fixtures.ray_processes import replicas

BODY = "JPEG in JSON"
CONNECTIONS, ROUNDS = 128, 3
APPLICATION, NAMES = "bound", ("Ingress", "Engines")


def deploy(port: int) -> None:
    """Put the empty application on the cluster that this process is connected to."""
    from ray import serve

    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    options: dict[str, Any] = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}, "max_ongoing_requests": 1000}
    app = FastAPI()  # it reads annotations, which travel to the replicas as objects: no import of them from __future__ here

    class Engines:
        async def answer(self, body: bytes) -> bytes:
            return b"{}"

    class Ingress:
        def __init__(self, engines: Any) -> None:
            self._engines = engines

        @app.post("/infer/lmm")
        async def infer(self, request: Request) -> Response:
            return Response(await self._engines.answer.remote(await request.body()))

    engines: Any = serve.deployment(Engines, name=NAMES[1], **options)
    ingress: Any = serve.deployment(serve.ingress(app)(Ingress), name=NAMES[0], **options)
    serve.run(ingress.bind(engines.bind()), name=APPLICATION, route_prefix="/")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    one = Clustered([8])
    try:
        deploy(one.port)
        watched = {name.lower(): replicas(name, APPLICATION) for name in NAMES}
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(loaded(watched, one.port, *bodies()[BODY], CONNECTIONS, given.seconds))
            print(rounds[-1], flush=True)
    finally:
        one.stop()
    print(report.write("cluster_bound", {"body": BODY, "connections": CONNECTIONS, "seconds": given.seconds}, {"rounds": rounds}))


if __name__ == "__main__":
    main()
