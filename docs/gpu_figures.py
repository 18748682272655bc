"""What was measured on a GPU, as Markdown: parts of a request, one request against ``transformers``, and captions with many callers."""

from __future__ import annotations

from statistics import median

from docs import figures

RESULT, ONE_REQUEST = "gpu", "gpu_one_request"
REFERENCES = ("transformers fp32", "transformers bf16")


def gpu() -> str:
    """Parts beside their floors, and captions a second."""
    found = figures._result(RESULT)
    if found is None:
        return figures._unmeasured(RESULT)
    blocks = []
    for size, of_size in found["figures"].items():
        parts = of_size["parts"]
        rows = [
            (
                f"decoder step, {count} rows",
                *(f"{one['step'][count]['ms'] + one['step'][count]['choosing_ms']:.2f} ms" for one in parts.values()),
            )
            for count in next(iter(parts.values()))["step"]
        ]
        rows += [
            (f"vision tower, {count} images", *(f"{one['tower'][count]['ms']:.1f} ms" for one in parts.values()))
            for count in next(iter(parts.values()))["tower"]
        ]
        rows.append(("encoder, one prompt", *(f"{one['prompt_ms']:.1f} ms" for one in parts.values())))
        callers, tokens = found["settings"]["callers"], found["settings"]["tokens"]
        rates = [
            (search, name, f"{one['captions_per_s']:.0f}", f"{one['peak_mib']:,} MiB")
            for search, contenders in of_size["captions"].items()
            for name, one in contenders.items()
        ]
        blocks += [
            figures.table((size.capitalize(), *parts), rows),
            f"Captions of {tokens} tokens, each of a picture of its own, at most {callers} callers at once:",
            figures.table(("Search", "", "Captions/s", "Memory of the card"), rates),
        ]
    return "\n\n".join([*blocks, figures._origin(RESULT, found)])


def gpu_one_request() -> str:
    """One request of many tokens against ``transformers``."""
    found = figures._result(ONE_REQUEST)
    if found is None:
        return figures._unmeasured(ONE_REQUEST)
    times = {name: {search: median(values) for search, values in one.items()} for name, one in found["figures"].items()}
    rows = [
        (search, name, f"{of_search[search]:.0f} ms", *(f"{times[reference][search] / of_search[search]:.1f}" for reference in REFERENCES))
        for search in times[REFERENCES[0]]
        for name, of_search in times.items()
    ]
    table = figures.table((f"{found['settings']['tokens']} tokens", "", "Median", *(f"x {name}" for name in REFERENCES)), rows)
    return f"{table}\n\n{figures._origin(ONE_REQUEST, found)}"
