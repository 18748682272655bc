"""What a cluster was measured to do, as Markdown: the figures of ``benchmarks/cluster_*.py``, and a plan that is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docs import figures as pages
from docs.figures import table

PLANNED_PER_S = 1000
PICTURES = 100_000_000
ASSUMED = (50, 100, 200)  # answers a second of one GPU: one was measured, with short answers
BUSY = 0.7  # of what a machine can do; the rest is for bursts, and for the others when one is lost


def cluster_ingress() -> str:
    """Requests a second through the ingress."""
    found = pages._result("cluster_ingress")
    if found is None:
        return pages._unmeasured("cluster_ingress")
    figures, settings = found["figures"], found["settings"]
    of_one = figures["answers_per_s_of_a_replica"]
    rows = [(f"{count} x {of_one:.0f}/s: JPEG in JSON", *_through(one)) for count, one in figures["by_replicas"].items()]
    rows += [
        (f"{settings['replicas']} x {of_one:.0f}/s: {name}, {one['num_bytes'] // 1000} kB", *_through(one))
        for name, one in figures["by_body"].items()
    ]
    header = ("Engines' capacity and body", "Requests/s", "p50", "Processor: ingress", "engine's replica", "HAProxy")
    note = (
        f"{settings['ingresses']} ingresses, HAProxy, the stand-ins of engines and the clients (`wrk`) share the machine's cores. "
        "All requests were answered."
    )
    return f"{table(header, rows)}\n\n{note} {pages._origin('cluster_ingress', found)}"


def cluster_routing() -> str:
    """What routing by image is worth."""
    found = pages._result("cluster_routing")
    if found is None:
        return pages._unmeasured("cluster_routing")
    ways = {"five_at_once": "five requests at once", "one_after_the_other": "one after the other"}
    rows = [
        (f"{said}, `routing: {routing}`", f"{one['hit_rate']:.0%}", f"{one['requests_a_second']:.1f}", f"{one['p50_ms']:.0f} ms")
        for way, said in ways.items()
        for routing, one in ((name, found["figures"][way][name]) for name in ("image", "load"))
    ]
    asked = found["settings"]
    note = (
        f"{len(asked['prompts'])} prompts about each of {asked['images']} images as requests of their own, {asked['clients']} clients, "
        f"{asked['replicas']} replicas with `{asked['model']}`, paired in one run; at most 80 % can be hits."
    )
    header = ("Prompts about an image", "Found encoded", "Requests/s", "p50")
    return f"{table(header, rows)}\n\n{note} {pages._origin('cluster_routing', found)}"


def cluster_label() -> str:
    """What became of pictures whose labelling was killed, and how fast it is."""
    found = pages._result("cluster_label")
    if found is None:
        return pages._unmeasured("cluster_label")
    kill = found["figures"]["kill"]
    said = (
        f"{kill['pictures']:,} pictures by a random checkpoint of tiny size, the driver killed when {kill['killed']['written']:,} were "
        "written, and the same command again: "
        f"{kill['num_missing']} missing, {kill['num_twice_for_readers']} twice for readers, {kill['num_twice_in_parts']} twice in parts."
    )
    rows = [
        (f"`label {name}`".replace("label without --ray", "label"), one["pictures_per_s"], one["pictures_per_s_without_the_start"] or "")
        for name, one in found["figures"]["throughput"].items()
    ]
    header = ("Command", "Pictures/s", "without the start")
    note = (
        f"{found['settings']['compared']:,} pictures each, `{found['settings']['compared_model']}`; all engines share the machine's cores."
    )
    return f"{said}\n\n{table(header, rows)}\n\n{note} {pages._origin('cluster_label', found)}"


def cluster_scaling() -> str:
    """Answers a second of several replicas with the demo model."""
    found = pages._result("cluster_scaling")
    if found is None:
        return pages._unmeasured("cluster_scaling")
    rows = [
        (count, f"{one['answers_per_s']:.1f}", f"{one['p50_ms']} ms", *(f"{ms:.1f} ms" for ms in one["processor_ms_an_answer"].values()))
        for count, one in found["figures"]["by_replicas"].items()
    ]
    header = ("Replicas", "Answers/s", "p50", "Processor an answer: engines", "ingress")
    return f"{table(header, rows)}\n\n{found['figures']['cores']} cores for all. {pages._origin('cluster_scaling', found)}"


def cluster_failures() -> str:
    """What became of requests when a part of the cluster was killed."""
    found = pages._result("cluster_failures")
    if found is None:
        return pages._unmeasured("cluster_failures")
    rows = [
        (
            what,
            f"{one['sent']:,} / {one['ended']:,}",
            ", ".join(f"{count:,} x {end}" for end, count in one["by_end"].items()),
            one["wrong_answers"],
            one.get("begun_twice", ""),
            f"{one['last_failure_s']:.1f} s",
            "not in a minute" if one["all_replicas_s"] is None else f"{one['all_replicas_s']:.1f} s",
            f"{one['slowest_s']:.1f} s",
        )
        for what, one in found["figures"].items()
    ]
    header = (
        "Killed",
        "Sent / ended",
        "How they ended",
        "Wrong answers",
        "Sent to a second replica",
        "Last failure after",
        "All replicas after",
        "Slowest request",
    )
    return f"{table(header, rows)}\n\n{pages._origin('cluster_failures', found)}"


def cluster_zero() -> str:
    """Where the time of a cold start goes."""
    found = pages._result("cluster_zero")
    if found is None:
        return pages._unmeasured("cluster_zero")
    names = {
        "until_replica_s": "Serve decides, and the replica's process is there",
        "replica_until_engine_s": "the replica's imports, until the engine's process is started",
        "engine_until_answer_s": "PyTorch, weights, one picture to warm up, and the answer",
        "cold_s": "**the first request, all in all**",
        "warm_s": "the next request",
        "gone_after_s": "no request: until the replica has left",
    }
    rounds, median = found["figures"]["rounds"], found["figures"]["median"]
    rows = [(said, f"{median[name]:.1f} s", f"{max(one[name] for one in rounds):.1f} s") for name, said in names.items()]
    return f"{table(('What', 'Median', 'Longest'), rows)}\n\n{pages._origin('cluster_zero', found)}"


def cluster_update() -> str:
    """What became of requests while all replicas were replaced."""
    found = pages._result("cluster_update")
    if found is None:
        return pages._unmeasured("cluster_update")
    figures = found["figures"]
    rounds = figures["updates"]
    sent, longest = sum(one["sent"] for one in rounds), max(one["replaced_s"] for one in rounds)
    wrong, slowest = sum(one["wrong_answers"] for one in rounds), max(one["slowest_s"] for one in rounds)
    return (
        f"{len(rounds)} updates under load: {sent:,} requests sent, {figures['num_lost']} lost, {wrong} wrong answers, the slowest took "
        f"{slowest:.1f} s; nothing of the earlier version was left after at most {longest:.0f} s. {pages._origin('cluster_update', found)}"
    )


def cluster_sizing() -> str:
    """What one core of each part can do."""
    rows = list(_sizes())
    return table(("Part", "Measured", "One core, busy for 70 %"), rows) if rows else pages._unmeasured("cluster_ingress")


def _sizes() -> Iterable[tuple[str, str, str]]:
    ingress, scaling, compare = (pages._result(name) for name in ("cluster_ingress", "cluster_scaling", "compare"))
    if ingress is not None:
        for name, one in ingress["figures"]["by_body"].items():
            ms = one["processor_ms_a_request"]["ingress"]
            yield f"Ingress: {name}, {one['num_bytes'] // 1000} kB", f"{ms:.2f} ms a request", f"{BUSY * 1000 / ms:.0f} requests/s"
        haproxy = max(one["processor_ms_a_request"]["haproxy"] for one in ingress["figures"]["by_body"].values())
        yield "HAProxy", f"{haproxy:.2f} ms a request", f"{BUSY * 1000 / haproxy:.0f} requests/s"
    if scaling is not None:
        ms = max(one["processor_ms_an_answer"]["engines"] for one in scaling["figures"]["by_replicas"].values())
        yield "Engine: florence-2-demo, `<OD>`", f"{ms:.1f} ms an answer", f"{BUSY * 1000 / ms:.0f} answers/s"
    if compare is not None:
        per_core = _base_per_core(compare)
        yield (
            "Engine: Florence-2-base's size, three beams, 33 tokens",
            f"{per_core:.2f} answers/s a core",
            f"{BUSY * per_core:.2f} answers/s",
        )


def _base_per_core(compare: Any) -> float:
    case = compare["figures"]["cases"]["base, 16 requests at once, 16 images, 3 beams, 33 tokens"]
    return 1000 * case["requests"] / case["ms"]["ours auto"]["median"] / compare["machine"]["cores"]


def cluster_plan() -> str:
    """The arithmetic of the plan for 1,000 requests a second."""
    ingress, compare = pages._result("cluster_ingress"), pages._result("compare")
    if ingress is None or compare is None:
        return pages._unmeasured("cluster_ingress" if ingress is None else "compare")
    body = ingress["figures"]["by_body"]["JPEG in JSON"]
    ms, per_core = body["processor_ms_a_request"]["ingress"], _base_per_core(compare)
    megabits = PLANNED_PER_S * body["num_bytes"] * 8 / 1e6
    rows = [
        ("Cores for ingresses", f"{PLANNED_PER_S}/s x {ms:.2f} ms / {BUSY:g}", f"{PLANNED_PER_S * ms / 1000 / BUSY:.1f}"),
        (
            "Network into the ingresses",
            f"{PLANNED_PER_S}/s x {body['num_bytes'] // 1000} kB",
            f"{megabits:.0f} Mbit/s, and three quarters of it on to the engines",
        ),
        (
            "Engines on processors",
            f"{PLANNED_PER_S}/s / {per_core:.2f} answers/s a core / {BUSY:g}",
            f"{PLANNED_PER_S / per_core / BUSY:,.0f} cores",
        ),
        *(
            (
                f"or on GPUs, at {rate} answers/s each *(assumed)*",
                f"{PLANNED_PER_S}/s / {rate}/s / {BUSY:g}",
                f"{PLANNED_PER_S / rate / BUSY:.0f} GPUs",
            )
            for rate in ASSUMED
        ),
    ]
    return table(("What", "Arithmetic", "Needed"), rows)


def cluster_pictures_plan() -> str:
    """The arithmetic of the plan for 100 million pictures."""
    compare = pages._result("compare")
    if compare is None:
        return pages._unmeasured("compare")
    per_core = _base_per_core(compare)
    rows = [
        ("Core years on processors", f"{PICTURES:,} / {per_core:.2f}/s a core", f"{PICTURES / per_core / 86400 / 365:.1f}"),
        *(
            (f"or GPU days, at {rate} pictures/s each *(assumed)*", f"{PICTURES:,} / {rate}/s", f"{PICTURES / rate / 86400:.0f}")
            for rate in ASSUMED
        ),
        (
            "Read from storage, at 200 kB a picture *(assumed)*",
            f"{PICTURES:,} x 200 kB",
            f"{PICTURES * 200e3 / 1e12:.0f} TB, as many GET requests as pictures",
        ),
        ("Ids to resume by", f"{PICTURES:,} x 12 bytes", f"{PICTURES * 12 / 1e9:.1f} GB in the driver, and as much while they are sorted"),
    ]
    return table(("What", "Arithmetic", "Needed"), rows)


def _through(one: dict[str, Any]) -> tuple[str, ...]:
    spent = one["processor_ms_a_request"]
    return (
        f"{one['requests_per_s']:.0f}",
        f"{one['p50_ms']:.0f} ms" if "p50_ms" in one else "over a second",  # wrk tells no more
        *(f"{spent[name]:.2f} ms" for name in ("ingress", "engines", "haproxy")),
    )
