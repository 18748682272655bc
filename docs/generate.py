"""What README and docs say that the code knows better: tables and lists, written between markers.

``python -m docs.generate`` rewrites every block ``<!-- generated: NAME -->`` … ``<!-- end generated -->`` in README.md, README.ko.md,
CONTRIBUTING.md and docs/; with ``--check`` it changes nothing and exits with 1 where a block is out of date. In: the package's
tables, its docstrings (read as text, so that torch is not needed), .importlinter, and the results of benchmarks. Out: Markdown
that depends on nothing else, neither terminal nor machine.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from docs import cluster_figures, curves
from docs.adapters_figures import adapters
from docs.compare_figures import OWN, OWN_WITH_BF16, compare_without_bf16, memory
from docs.engine_process_figures import engine_kill, engine_process
from docs.figures import (
    answers,
    calibration,
    calibration_worlds,
    compare,
    demo_accuracy,
    demo_accuracy_short,
    demo_training,
    environments,
    fine_tune,
    http,
    measured,
    neighbours,
    parity_full,
    precisions,
    processes,
    roofline,
    score_cost,
    table,
)
from docs.gpu_figures import gpu, gpu_one_request
from docs.korean import korean
from docs.labelling_figures import label
from docs.load_figures import load_test
from docs.overload_figures import under_load
from docs.package_blocks import PACKAGE, ROOT, decisions, imports, rooms
from docs.server_blocks import (
    cluster_fields,
    openai_arguments,
    server_bounds,
    server_errors,
    server_metrics,
    server_profiles,
    server_settings,
)
from docs.step_figures import decoder_step, precision_logits
from docs.streaming_figures import streaming
from docs.tiles_figures import tiles
from docs.wording import first_sentence, prose
from florence2 import errors
from florence2.tasks import TASKS
from florence2.weights.aliases import ALIASES

_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n)(.*?)(<!-- end generated -->)", re.DOTALL)
EVERYWHERE = ("quiet", "verbose")  # options of every command, described once
_OPENING, _CLOSING = "<!-- generated: ", "<!-- end generated -->"


def documented(file: str, name: str) -> tuple[ast.FunctionDef | ast.ClassDef, ast.Module]:
    """A function or class of the package by its name, and the module it stands in."""
    module = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node, module
    raise KeyError(f"{file} has no {name}")


def section(node: ast.FunctionDef | ast.ClassDef, title: str) -> dict[str, str]:
    """The entries under ``Args:`` or ``Attributes:`` of a docstring, in their order."""
    lines = (ast.get_docstring(node) or "").splitlines()
    entries: dict[str, str] = {}
    name = ""
    for line in lines[lines.index(f"{title}:") + 1 :]:
        if line and not line.startswith(" "):
            break
        if entry := re.match(r" {4}(\w+): (.*)", line):
            name = entry[1]
            entries[name] = entry[2]
        elif line.strip():
            entries[name] += " " + line.strip()
    return entries


def defaults(function: ast.FunctionDef, module: ast.Module) -> dict[str, str]:
    """The default of each keyword, with the module's constants in place of their names."""
    constants = {
        target.id: ast.unparse(node.value)
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    positional = function.args.args[len(function.args.args) - len(function.args.defaults) :]
    pairs = [*zip(positional, function.args.defaults, strict=True), *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)]
    written = {argument.arg: ast.unparse(value) for argument, value in pairs if value is not None}
    return {name: constants.get(value, value).replace("'", '"') for name, value in written.items()}


# Blocks: what the package knows


def tasks() -> str:
    """The tasks, for someone who wants to use one; narrow enough for a phone."""
    rows = ((f"`{task.name}`", task.needs or "", task.kind.replace("_", " ")) for task in TASKS.values())
    return table(("`--task`", "You add", "You get"), rows)


def prompts() -> str:
    """The tasks with the sentence behind each."""
    rows = ((f"`{task.tag}`", task.needs or "nothing", f"`{task.template}`", task.kind.replace("_", " ")) for task in TASKS.values())
    return table(("Tag", "Needs", "The model sees", "Kind"), rows)


def aliases() -> str:
    """The short names of checkpoints."""
    rows = (
        (f"`{alias.name}`", alias.num_parameters, f"`{alias.repository}`" if alias.repository else "this package", alias.description)
        for alias in ALIASES.values()
    )
    return table(("Alias", "Parameters", "From", ""), rows)


def aliases_short() -> str:
    """The short names of checkpoints, narrow enough for a phone."""
    return table(("Alias", "Parameters"), ((f"`{alias.name}`", alias.num_parameters) for alias in ALIASES.values()))


def error_classes() -> str:
    """The tree of errors."""
    classes = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, errors.Florence2Error)]
    rows = (
        (f"`{cls.__name__}`", ", ".join(f"`{base.__name__}`" for base in cls.__bases__), f"`{cls.code}`", cls.status, _meaning(cls))
        for cls in classes
    )
    return table(("Class", "Is also", "Code", "HTTP status", "Meaning"), rows)


def measures() -> str:
    """What each figure of an evaluation means."""
    module = ast.parse((PACKAGE / "evaluation" / "metrics.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.target): node.value for node in module.body if isinstance(node, ast.AnnAssign) and node.value}
    meanings = ast.literal_eval(assigned["MEANINGS"])
    return table(("Figure", "Means"), ((f"`{name}`", meaning) for name, meaning in meanings.items()))


def _meaning(cls: type) -> str:
    return prose(first_sentence(cls.__doc__ or ""))


def load_arguments() -> str:
    """What ``florence2.load`` takes."""
    function, module = documented("engine/engine.py", "load")
    assert isinstance(function, ast.FunctionDef)
    values = defaults(function, module)
    rows = ((f"`{name}`", f"`{values[name]}`" if name in values else "", prose(text)) for name, text in section(function, "Args").items())
    return table(("Argument", "Default", "Meaning"), rows)


def request_options() -> str:
    """What a request may set."""
    generation = section(documented("request_options.py", "GenerationOptions")[0], "Attributes")
    switches = section(documented("request_options.py", "RequestOptions")[0], "Attributes")
    return table(("Option", "Meaning"), ((f"`{name}`", prose(text)) for name, text in {**generation, **switches}.items()))


def attributes(kind: str) -> str:
    """What a class of ``results.py`` holds."""
    entries = section(documented("results.py", kind)[0], "Attributes")
    return table(("Attribute", "Holds"), ((f"`{name}`", prose(text)) for name, text in entries.items()))


def commands() -> str:
    """Every command with its arguments and options; not the formatted help, which changes with typer and the terminal."""
    import typer.main

    from florence2.cli.app import app, commands_of

    group: Any = typer.main.get_command(app)
    sections = []
    for name, command in (("florence2", group), *((f"florence2 {name}", command) for name, command in commands_of().items())):
        needed = (_name(param, short=False) for param in command.params if param.required or param.param_type_name == "argument")
        call = " ".join([name, *needed]) if command is not group else f"{name} COMMAND"
        _, _, examples = (command.epilog or "").partition("Examples:\n")
        examples = examples.partition("\n\n")[0]
        calls = f"```\n{textwrap.dedent(examples)}\n```\n\n" if examples else ""
        sections.append(f"## {name}\n\n```\n{call}\n```\n\n{prose(command.help)}\n\n{calls}{_parameters(command)}".rstrip())
    return "\n\n".join(sections)


def _parameters(command: Any) -> str:
    rows = []
    for param in command.params:
        if param.name in EVERYWHERE and command.name != "florence2":
            continue
        shown = param.show_default if isinstance(getattr(param, "show_default", None), str) else param.default
        default = "required" if param.required else "" if shown in (None, False, ()) else f"`{shown}`"
        rows.append((f"`{_name(param)}`", default, prose(param.help or "")))
    return table(("Argument or option", "Default", "Meaning"), rows) if rows else ""


def _name(param: Any, *, short: bool = True) -> str:
    """How a parameter is written, with a word for its value where it takes one; with its short form or without."""
    word = param.metavar or param.name.upper()
    if param.param_type_name == "argument":
        return word
    names = [*param.opts, *param.secondary_opts] if short else [max(param.opts, key=len)]
    return ", ".join(names) + ("" if param.is_flag else f" {word}")


def mcp_tools() -> str:
    """The tools of ``florence2 mcp`` with their arguments."""
    from florence2.mcp.tools import TOOLS, Tool

    parts = []
    for tool in TOOLS.values():
        fields = {name: field for name, field in tool.model_fields.items() if name not in Tool.model_fields}
        rows = ((f"`{name}`", _default_of(field), prose(field.description or "")) for name, field in fields.items())
        parts.append(f"### {tool.name}\n\n{prose(tool.description)}\n\n{table(('Argument', 'Default', 'Meaning'), rows)}")
    return "\n\n".join(parts)


def _default_of(field: Any) -> str:
    """The default of a tool's argument as JSON writes it."""
    return "required" if field.is_required() else "" if field.default is None else f"`{json.dumps(field.default)}`"


BLOCKS: dict[str, Callable[[], str]] = {
    "tasks": tasks,
    "prompts": prompts,
    "aliases": aliases,
    "aliases-short": aliases_short,
    "errors": error_classes,
    "load-arguments": load_arguments,
    "request-options": request_options,
    "result-fields": partial(attributes, "Result"),
    "object-fields": partial(attributes, "FoundObject"),
    "commands": commands,
    "mcp-tools": mcp_tools,
    "rooms": rooms,
    "imports": imports,
    "decisions": decisions,
    "server-errors": server_errors,
    "server-settings": server_settings,
    "server-bounds": server_bounds,
    "server-profiles": server_profiles,
    "server-metrics": server_metrics,
    "cluster-fields": cluster_fields,
    "openai-arguments": openai_arguments,
    "calibration": calibration,
    "calibration-worlds": calibration_worlds,
    "score-cost": score_cost,
    "compare": compare,
    "compare-without-bf16": compare_without_bf16,
    "memory": partial(memory, "memory", OWN_WITH_BF16),
    "memory-without-bf16": partial(memory, "memory_without_bf16", OWN),
    "gpu": gpu,
    "gpu-one-request": gpu_one_request,
    "precisions-gpu": partial(precisions, "precisions_gpu"),
    "engine_process": engine_process,
    "engine_kill": engine_kill,
    "under-load": under_load,
    "cluster-ingress": cluster_figures.cluster_ingress,
    "cluster-scaling": cluster_figures.cluster_scaling,
    "cluster-routing": cluster_figures.cluster_routing,
    "cluster-label": cluster_figures.cluster_label,
    "cluster-failures": cluster_figures.cluster_failures,
    "cluster-zero": cluster_figures.cluster_zero,
    "cluster-update": cluster_figures.cluster_update,
    "cluster-sizing": cluster_figures.cluster_sizing,
    "cluster-plan": cluster_figures.cluster_plan,
    "cluster-pictures-plan": cluster_figures.cluster_pictures_plan,
    "neighbours": neighbours,
    "precisions": precisions,
    "precisions-without-bf16": partial(precisions, "precisions_without_bf16"),
    "processes": processes,
    "roofline": roofline,
    "roofline-without-bf16": partial(roofline, "roofline_without_bf16"),
    "roofline-amx": partial(roofline, "roofline_amx"),
    "decoder-step": decoder_step,
    "decoder-step-without-bf16": partial(decoder_step, "decoder_step_without_bf16"),
    "decoder-step-amx": partial(decoder_step, "decoder_step_amx"),
    "precision-logits": precision_logits,
    "environments": environments,
    "http": http,
    "streaming": streaming,
    "tiles": tiles,
    "label": label,
    "load_test": load_test,
    "adapters": adapters,
    "parity-full": parity_full,
    "demo-accuracy": demo_accuracy,
    "demo-accuracy-short": demo_accuracy_short,
    "fine-tune": fine_tune,
    "measured": measured,
    "measures": measures,
    "demo-training": demo_training,
    "answers": answers,
}
IN_KOREAN = ("tasks", "aliases-short", "measured")
BLOCKS |= {f"{name}-ko": lambda block=BLOCKS[name]: korean(block()) for name in IN_KOREAN}


# Pages


def pages(root: Path) -> list[Path]:
    """The pages that may hold blocks."""
    named = ("README.md", "README.ko.md", "CONTRIBUTING.md", "src/florence2/demo/README.md")
    return [*(path for name in named if (path := root / name).is_file()), *sorted((root / "docs").rglob("*.md"))]


def renewed(text: str) -> str:
    """A page's text with every block as it should be.

    Raises:
        ValueError: a block of an unknown name, or one that is not closed.
    """
    found = _BLOCK.findall(text)
    if any(_OPENING in body for _, _, body, _ in found) or not len(found) == text.count(_OPENING) == text.count(_CLOSING):
        raise ValueError(f"every line {_OPENING}NAME --> needs a line {_CLOSING} behind it, before the next block")
    unknown = [name for _, name, _, _ in found if name not in BLOCKS]
    if unknown:
        raise ValueError(f"unknown block {unknown[0]}; there are {', '.join(BLOCKS)}")
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[4]}", text)


def update(root: Path, *, check: bool) -> list[Path]:
    """Renew all pages and the picture that is drawn of figures, or with ``check`` only say which would change.

    Raises:
        ValueError: a page's markers are wrong; the message names the page.
    """
    changed = []
    contents = {path: path.read_text(encoding="utf-8") for path in pages(root)}
    picture = root / curves.PICTURE.relative_to(ROOT)
    for path, text in {**contents, picture: picture.read_text(encoding="utf-8") if picture.is_file() else ""}.items():
        try:
            new = curves.reliability() if path == picture else renewed(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if new != text:
            changed.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew or check; the exit code."""
    parser = argparse.ArgumentParser(description="Rewrite the generated blocks of README.md, CONTRIBUTING.md and docs/.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a block is out of date")
    check = parser.parse_args(arguments).check
    changed = update(ROOT, check=check)
    for path in changed:
        print(f"{path.relative_to(ROOT)}: {'out of date, run make docs' if check else 'renewed'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
