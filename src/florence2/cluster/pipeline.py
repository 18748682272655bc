"""The stages of a labelling run on Ray Data: inputs are listed, read, asked about, and written.

In: what each stage needs, and the resources of the cluster. Out: the run, as far as its ledger knows it. Every block holds one chunk as its
only row, so that Ray neither joins nor cuts them. Knows nothing of options and folders.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from florence2.cluster.answering import Asker, Load, num_chunks
from florence2.cluster.ledger import WAIT, Ledger
from florence2.cluster.listing import Named
from florence2.cluster.reading import Reader
from florence2.cluster.writing import NUM_CHUNKS, NUM_RECORDS, Writer
from florence2.errors import InvalidOption
from florence2.labelling.options import LabelOptions
from florence2.labelling.parts import PartsFolder
from florence2.openmp import CHOSEN_BY_USER, SPIN, SPIN_COUNT

LedgerActor = Any
"""An actor of ``Ledger``, whose methods have ``remote``."""
_CPU_SHARE = 0.75
"""Of the processors, for engines that compute on them; the others read pictures."""
_FEW_CPUS = 4
"""With fewer, engines compute with all of them: pictures are read in the time that they leave."""
_ENGINES_PER_WRITER = 8
_WAIT_S = 0.05
_BACKEND_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_LOGGERS = ("ray", "ray.data", "ray.data.dataset")


@dataclass(frozen=True)
class Workers:
    """What runs where.

    Attributes:
        num_engines: the most engines.
        num_cpus: of each engine.
        num_gpus: of each engine.
        num_threads: with which each engine computes.
        num_cpus_to_read: of each task that reads pictures.
        num_ahead: chunks of inputs that are out at once.
        num_chunks: chunks that are with an engine at once.
    """

    num_engines: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    num_cpus_to_read: float
    num_ahead: int
    num_chunks: int


def workers(num_engines: int | None, device: str, capacity: int | None) -> Workers:
    """What fits a cluster: an engine for each GPU, or where there is none, one for each node with most of its processors.

    Args:
        num_engines: how many engines the user wants; None for as many as there are GPUs or nodes.
        device: as for ``florence2.load``.
        capacity: how many pictures a server is asked about at once by each worker; None where models are loaded.

    Raises:
        InvalidOption: the cluster has no such device.
    """
    total = ray.cluster_resources()
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
    cpus, gpus = max(1.0, total.get("CPU", 0)), total.get("GPU", 0)
    is_on_gpu = capacity is None and (device.startswith("cuda") or (device == "auto" and gpus >= 1))
    if is_on_gpu and gpus < 1:
        raise InvalidOption(f"device={device} is asked for, and the cluster has no GPU that Ray knows of; leave it out", field="device")
    most = num_engines or (int(gpus) if is_on_gpu else max(1, len(nodes)))
    share = min(_CPU_SHARE * cpus / most, _CPU_SHARE * max(nodes, default=1.0))
    of_engine = 1.0 if is_on_gpu else float(int(share)) if share >= 1 else round(share, 2)
    whole = min(cpus / most, max(nodes, default=1.0))
    threads = max(1, int(whole if whole < _FEW_CPUS else of_engine))
    chunks = num_chunks(capacity or (52 if is_on_gpu else 16))
    ahead = most * (chunks + 4) + 2 * NUM_CHUNKS * num_writers(most) + 4 * int(cpus)
    return Workers(most, 0.1 if capacity else of_engine, float(is_on_gpu), threads, 1.0 if cpus >= _FEW_CPUS else 0.25, ahead, chunks)


def lack_of_room(plan: Workers) -> str | None:
    """What to tell the user where what an engine and reading for it need is taken, so that a run waits; None where there is room."""
    free, total = ray.available_resources(), ray.cluster_resources()
    for name, called, what, needed in (
        ("GPU", "GPUs", "an engine needs", plan.num_gpus),
        ("CPU", "processor cores", "an engine and reading for it need", plan.num_cpus + plan.num_cpus_to_read),
    ):
        if free.get(name, 0) < needed:
            return (
                f"The cluster's {called} are taken: {what} {needed:g}, and {free.get(name, 0):g} of {total.get(name, 0):g} "
                "are free. The run waits until others leave some or a node is added (`ray status` shows who has them; what "
                "`florence2 cluster serve` runs keeps its own)."
            )
    return None


def num_writers(num_engines: int) -> int:
    """How many writers keep up with so many engines."""
    return -(-num_engines // _ENGINES_PER_WRITER)


def open_ledger(named: Named, folder: str, current_folder: str | None, num_ahead: int, *, is_strict: bool) -> LedgerActor:
    """The ledger of a run, on this node; it ends with the handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=current_folder is None)
    actor = ray.remote(Ledger).options(num_cpus=0, max_concurrency=64, scheduling_strategy=here)
    return actor.remote(named, folder, current_folder, num_ahead, is_strict)


def dataset(
    ledger: LedgerActor, plan: Workers, reader: Reader, load: Load, options: LabelOptions, folder: Path | None, parts: PartsFolder
) -> Dataset:
    """The stages of a run, which begin when it is iterated over; nothing comes out.

    Args:
        ledger: the run's.
        plan: what runs where.
        reader: reads pictures.
        load: gives an engine's model, in the engine's process.
        options: of the run.
        folder: where pictures are kept; None where they are not.
        parts: where records are written.
    """
    stage = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}

    def pool(size: int, num_chunks: int) -> ActorPoolStrategy:
        return ActorPoolStrategy(
            min_size=1,
            max_size=size,
            initial_size=size,
            max_tasks_in_flight_per_actor=num_chunks + 2,
            max_concurrent_calls_per_actor=num_chunks,
            enable_true_multi_threading=True,
        )

    listed = ray.data.read_datasource(_Chunks(ledger), override_num_blocks=1, num_cpus=0)
    with warnings.catch_warnings(action="ignore"):  # of the way in which retries are set, which has no other yet
        read = listed.map_batches(reader, num_cpus=plan.num_cpus_to_read, max_retries=-1, **stage)
    engines = pool(plan.num_engines, plan.num_chunks)
    resources = {"num_cpus": plan.num_cpus, **({"num_gpus": plan.num_gpus} if plan.num_gpus else _soon_asleep())}
    # A chunk is the only row of its block. Ray wants a number of rows where there are GPUs.
    own = {**stage, "batch_size": 1}
    asked = read.map_batches(Asker, fn_constructor_args=(ledger, load, options, folder), compute=engines, **resources, **own)
    writers = pool(num_writers(plan.num_engines), NUM_CHUNKS)
    return asked.map_batches(Writer, fn_constructor_args=(ledger, parts, NUM_RECORDS), compute=writers, num_cpus=0, **stage)


def _soon_asleep() -> dict[str, Any]:
    """What has the threads of an engine's process sleep soon where they wait for each other, unless the user has chosen.

    In an actor PyTorch may be imported before anything of this project, and with it libgomp, which reads this once.
    """
    if any(name in os.environ for name in CHOSEN_BY_USER):
        return {}
    return {"runtime_env": {"env_vars": {SPIN: SPIN_COUNT}}}


def consume(stages: Dataset) -> None:
    """Run all stages to their end."""
    for _ in stages.iter_internal_ref_bundles():
        pass


class _Chunks(Datasource):
    """The ledger's chunks of inputs, as Ray Data reads them: one task, which waits where enough are out."""

    def __init__(self, ledger: LedgerActor) -> None:
        super().__init__()
        self._ledger = ledger

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown."""
        return None

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None) -> list[ReadTask]:
        """The one task."""
        about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_chunks, self._ledger), about)]


def _chunks(ledger: LedgerActor) -> Iterator[pa.Table]:
    index = 0
    while (content := ray.get(ledger.chunk.remote(index))) is not None:
        if content == WAIT:
            time.sleep(_WAIT_S)
            continue
        yield pa.table({"key": [index], "content": pa.array([content], pa.large_binary())})
        index += 1


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to Ray for the length of a block: that of the caller's process where there is one, else to a cluster, or to a new one.

    Args:
        address: of a cluster, as for ``ray.init``; None to start Ray here.

    Raises:
        InvalidOption: there is no cluster at the address.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _connect(address)
        elif address is not None:
            raise InvalidOption("address= is given, and this process is connected to a cluster already; leave it out", field="address")
        yield


def _connect(address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _without_remarks():
            if address is None:
                ray.init("local", include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        said = " ".join(str(error).split())[:200]
        raise InvalidOption(
            f"no Ray cluster can be reached at address={address} ({said}); expected auto, ray://host:10001 or host:6379, "
            "or leave it out to start Ray here",
            field="address",
        ) from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Have Ray's native part say fatal things alone for the length of a block and after it, unless the user has chosen.

    Else each pool of actors is answered with a line on what might go wrong; and the setting itself is, on standard error.
    """
    if _BACKEND_LEVEL in os.environ:
        yield
        return
    os.environ[_BACKEND_LEVEL] = "fatal"
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)
        os.environ.pop(_BACKEND_LEVEL, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data as these stages need it, and without output of its own."""
    context = DataContext.get_current()
    ours = {
        "target_max_block_size": 1,  # so that each row is a block of its own
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        # Else each call of a worker walks through the memory of its process once a second; up to eighty are with a writer at once.
        "memory_usage_poll_interval_s": None,
    }
    before = {name: getattr(context, name) for name in ours}
    levels: Sequence[tuple[logging.Logger, int]] = [(logger, logger.level) for logger in map(logging.getLogger, _LOGGERS)]
    for name, value in ours.items():
        setattr(context, name, value)
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for logger, level in levels:
            logger.setLevel(level)
