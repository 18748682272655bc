"""The nodes of a cluster: what they have, whether this package is on them, in this version, and how Ray was started there.

In: a connection to Ray. Out: what is wrong, before anything is deployed. Knows nothing of Ray Serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from florence2.cluster.config import ClusterConfig
from florence2.cluster.started import ClusterFailed
from florence2.version import __version__

LOOK_S = 60.0  # for the first worker of a node to start and import


def asked_for(config: ClusterConfig) -> dict[str, float]:
    """The CPUs and GPUs that the fewest replicas need."""
    engines, ingress = config.engines, config.ingress
    cpus = engines.min_replicas * engines.num_cpus + ingress.min_replicas * ingress.num_cpus
    return {"CPU": cpus, "GPU": engines.min_replicas * engines.num_gpus}


def has_room_for_more(config: ClusterConfig, free: Mapping[str, float]) -> bool:
    """Whether one more of each kind of replica fits.

    Args:
        config: the cluster's.
        free: CPUs and GPUs that nobody has taken.
    """
    cpus = config.engines.num_cpus + config.ingress.num_cpus
    return free.get("CPU", 0.0) >= cpus and free.get("GPU", 0.0) >= config.engines.num_gpus


def lacking(config: ClusterConfig, there: Mapping[str, float]) -> str | None:
    """What the fewest replicas need and is not there; None: nothing.

    Args:
        config: the cluster's.
        there: CPUs and GPUs, of all nodes together.
    """
    asked = asked_for(config)
    missing = [name for name, number in asked.items() if number > there.get(name, 0.0)]
    if not missing:
        return None
    engines, ingress = config.engines, config.ingress
    parts = [f"{engines.min_replicas} engines with {_amount(engines.num_cpus, 'CPU')} and {_amount(engines.num_gpus, 'GPU')} each"]
    parts.append(f"{ingress.min_replicas} ingress with {_amount(ingress.num_cpus, 'CPU')}")
    told = " and ".join(f"{_amount(asked[name], name)} are asked for and {there.get(name, 0.0):g} there" for name in missing)
    return f"{told} ({', '.join(parts)}); ask for fewer with --engines, --cpus, --gpus or ingress.num_cpus, or add nodes"


def _amount(number: float, name: str) -> str:
    return f"{number:g} {name}{'s' * (number != 1)}"


def check_nodes(variables: Mapping[str, str]) -> list[str]:
    """Refuse a cluster with nodes on which this package is missing, or is another version, with other fields in what they would send.

    Args:
        variables: what the environment of Ray should hold everywhere.

    Returns:
        The addresses of nodes where Ray was started without that, or with other values.

    Raises:
        ClusterFailed: there is a node without this version.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {node["NodeManagerAddress"]: _ask(node["NodeID"], tuple(variables)) for node in alive}
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=LOOK_S)
    wrong, differing = [], []
    for address, reference in asked.items():
        try:
            version, found = ray.get(reference, timeout=0)
        except GetTimeoutError:
            continue  # a node on which all processes are busy says nothing against it
        except Exception as error:
            wrong.append(f"{address} does not say ({type(error).__name__})")
            continue
        if version != __version__:
            wrong.append(f"{address} has {'none' if version is None else version}")
        if found != variables:
            differing.append(address)
    if wrong:
        raise ClusterFailed(
            f"every node needs florence2 {__version__}, as there is here; {', '.join(wrong)}. "
            "Install that version of florence2-engine[cluster] there"
        )
    return differing


def _ask(node_id: str, names: tuple[str, ...]) -> Any:
    def said_there() -> tuple[str | None, dict[str, str]]:  # a function within a function is sent as code: it needs no package there
        import os

        found = {name: os.environ[name] for name in names if name in os.environ}
        try:
            from florence2.version import __version__
        except ModuleNotFoundError:
            return None, found
        return __version__, found

    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(said_there).options(num_cpus=0, scheduling_strategy=strategy, max_retries=0).remote()
