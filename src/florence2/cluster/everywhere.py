"""Metrics of several replicas as one text: each value with the replica that counted it, each name once.

A replica that ends takes its series with it, so that no sum over replicas seems to count backwards. Knows neither Ray nor HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client.core import Metric

LABEL = "replica"


def labelled(families: Iterable[Metric], replica: str, without: Collection[str] = ()) -> list[Metric]:
    """The metrics of one replica with its name.

    Args:
        families: what its registry has.
        replica: its name.
        without: names of metrics that are left out, as others count them.
    """
    found = []
    for family in families:
        if family.name in without or f"{family.name}_total" in without:
            continue
        family.samples = [sample._replace(labels={**sample.labels, LABEL: replica}) for sample in family.samples]
        found.append(family)
    return found


def merged(families: Iterable[Metric]) -> list[Metric]:
    """The same, with all values of a metric together."""
    found: dict[str, Metric] = {}
    for family in families:
        if family.name in found:
            found[family.name].samples += family.samples
        else:
            found[family.name] = family
    return list(found.values())
