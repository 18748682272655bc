"""What every command of the line has in common: help, letters, wrong calls, ``-q`` and ``-v``, and which model answers unasked."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer

from florence2 import console, errors
from florence2.cli import app, main
from florence2.cli.app import GROUPS, commands_of
from florence2.cli.examples import EXAMPLES
from florence2.weights.aliases import ALIASES, DEMO
from tests.docs.markdown import ROOT

GROUP: Any = typer.main.get_command(app)
COMMANDS = commands_of()
SCENE = str(ROOT / "examples" / "scene.png")
EVERYWHERE = {"-h", "--help", "-q", "--quiet", "-v", "--verbose"}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def options(command: Any) -> dict[str, str]:
    """Every way to write an option of a command, and the longest one of the same option."""
    above = GROUP.make_context("florence2", [], resilient_parsing=True)
    with command.make_context("x", [], parent=above, resilient_parsing=True) as context:
        params = [param for param in command.get_params(context) if param.param_type_name == "option"]
    return {name: max(param.opts, key=len) for param in params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("words", [["-h"], ["--help"], *([*name.split(), "-h"] for name in COMMANDS)])
def test_help_is_there_in_every_command(cli, words: list[str]) -> None:
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    assert "-q, --quiet" in out
    assert "-v, --verbose" in out
    assert "-h, --help" in out
    assert "Examples:" in out or len(words) == 1


def test_each_command_is_one_whole_line_in_the_list(cli) -> None:
    listed = cli("-h")[1].split("Commands:\n")[1]
    for name, command in GROUP.commands.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", listed, re.MULTILINE), name


def test_without_a_command_help_is_an_error(cli) -> None:
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert "Commands:" in err


def test_a_letter_means_the_same_everywhere() -> None:
    meanings = defaultdict(set)
    for command in (GROUP, *COMMANDS.values()):
        for name, longest in options(command).items():
            if len(name) == 2:
                meanings[name].add(longest)
    assert {letter: names for letter, names in meanings.items() if len(names) > 1} == {}
    assert set(meanings) >= {"-h", "-V", "-q", "-v", "-m", "-a", "-o", "-d", "-p"}
    assert {name: EVERYWHERE - set(options(command)) for name, command in COMMANDS.items()} == {name: set() for name in COMMANDS}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_alone_lists_its_commands_as_an_error(cli, name: str) -> None:
    code, out, err = cli(name)
    assert (code, out) == (2, "")
    for command in GROUPS[name][1]:
        assert re.search(rf"^  {command.__name__} +{re.escape(COMMANDS[f'{name} {command.__name__}'].help)}$", err, re.MULTILINE)
    assert cli(name, "-h") == (0, err, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_can_be_read_by_it(name: str) -> None:
    calls = [line for line in EXAMPLES[name].splitlines() if "florence2" in line]
    assert calls
    for call in calls:
        program, *words = shlex.split(call)
        num_words = len(name.split())
        assert (program, " ".join(words[:num_words])) == ("florence2", name)
        COMMANDS[name].make_context(name, words[num_words:])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["infre"], "there is no command infre (did you mean infer?); see florence2 --help"),
        (["help"], "there is no command help (did you mean --help?); see florence2 --help"),
        (["version"], "there is no command version (did you mean --version?); see florence2 --help"),
        (["caption", "a.png"], "there is no command caption; see florence2 --help"),
        (["zzz"], "there is no command zzz; see florence2 --help"),
        (["--verson"], "there is no option --verson (did you mean --version?); see florence2 --help"),
        (["-m", "x", "infer"], "-m goes behind the command; see florence2 --help"),
        (["infer", "a.png", "-p", "x", "--bems", "3"], "there is no option --bems (did you mean --beams?); see florence2 infer --help"),
        (["infer", "a.png", "-p", "x", "-Z"], "there is no option -Z; see florence2 infer --help"),
        (["infer", "a.png", "-p"], "-p needs a value; see florence2 infer --help"),
        (["infer", "a.png", "-p", "x", "--json=yes"], "--json takes no value; see florence2 infer --help"),
        (["infer", "a.png", "-p", "x", "--beams", "two"], "--beams must be a whole number, got 'two'; see florence2 infer --help"),
        (["infer", "a.png", "-p", "x", "--beams=1.5"], "--beams must be a whole number, got '1.5'; see florence2 infer --help"),
        (["train", "-d", "x", "-o", "y"], "--model is missing; see florence2 train --help"),
        (["train", "-m", "x", "-d", "x", "-o", "y", "--alpha", "z"], "--alpha must be a number, got 'z'; see florence2 train --help"),
        (["train", "-m", "x", "-d", "x", "-o", "y", "--seed", "-3"], "--seed must be at least 0, got '-3'; see florence2 train --help"),
        (["evaluate"], "--data is missing; see florence2 evaluate --help"),
        (["evaluate", "-d", "x", "-n", "0"], "--limit must be at least 1, got '0'; see florence2 evaluate --help"),
        (["pull"], "MODEL is missing; see florence2 pull --help"),
        (["bench", "srve"], "there is no command srve (did you mean serve?); see florence2 bench --help"),
        (["bench", "--rate", "3"], "--rate goes behind the command; see florence2 bench --help"),
        (["bench", "serve"], "URL is missing; see florence2 bench serve --help"),
        (["bench", "serve", "x", "--rte", "3"], "there is no option --rte (did you mean --rate?); see florence2 bench serve --help"),
        (["bench", "serve", "x", "--seed", "-1"], "--seed must be at least 0, got '-1'; see florence2 bench serve --help"),
        (["serve", "-P", "web"], "--port must be a whole number, got 'web'; see florence2 serve --help"),
        (["-q", "models", "-v"], "--quiet and --verbose are given; leave one of them out"),
        (["models", "-q", "-v"], "--quiet and --verbose are given; leave one of them out"),
    ],
)
def test_a_wrong_call_is_one_line(cli, words: list[str], told: str) -> None:
    assert cli(*words) == (2, "", f"florence2: {told}\n")


def test_a_missing_argument_names_it(cli) -> None:
    code, out, err = cli("pull", "a", "b")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"florence2: .*\(b\); see florence2 pull --help\n", err)


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["-q", "-V"]])
def test_version(cli, words: list[str]) -> None:
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"florence2 \d\S*\n", out)


# The model that nobody chose


@pytest.mark.slow
def test_the_demo_says_what_it_is_where_nobody_chose_it(cli) -> None:
    code, out, err = cli("infer", SCENE, "-p", "<CAPTION>")
    assert code == 0
    assert len(err.splitlines()) == 1
    assert all(part in err for part in (DEMO, "not photographs", "--model florence-2-base"))
    for words in (["-m", DEMO], ["-q"]):
        assert cli("infer", SCENE, "-p", "<CAPTION>", *words) == (0, out, "")
    assert cli("-q", "infer", SCENE, "-p", "<CAPTION>") == (0, out, "")


def test_a_measured_demo_says_what_it_is(cli) -> None:
    words = ("evaluate", "-d", "synthetic:1?seed=1000000&tasks=CAPTION", "-b", 1)
    assert "not photographs" in cli(*words)[2]
    assert "not photographs" not in cli(*words, "-m", DEMO)[2]
    assert cli(*words, "-q")[2] == ""


# Messages in the words of the line


def _raised(path: Path) -> list[tuple[str, str | None]]:
    """The constant parts of each message that a module raises, and the field that it names."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.InvalidRequest)}
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            field = next((word.value.value for word in node.keywords if word.arg == "field" and isinstance(word.value, ast.Constant)), None)
            found.append((text, field))
    return found


# What a data set's own fields are called, files, and what no command asks for.
NO_OPTIONS = r"category_id|image_id|kpt_shape|image_size|trust_remote_code|NO_PROXY|loc_\w+|\?seed="
UNREACHED = {"answer", "image_size", "coordinates", "prompts", "early_stopping", "warmup", "image", "tags", "auto_orient", None}


@pytest.mark.parametrize("room", ["tasks", "engine", "datasets", "evaluation", "training", "weights", "cli", "."])
def test_no_message_speaks_of_python(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message that a command can meet, through what puts flags into it, in the command that has its field."""
    folder = ROOT / "src" / "florence2" / room
    for path in sorted(folder.glob("*.py")):
        for text, field in _raised(path):
            if field in UNREACHED and field is not None:
                continue
            elsewhere = {param.name for command in _commands_with(field) for param in command.params}
            for command in _commands_with(field):
                flags = {str(param.name): max(param.opts, key=len) for param in command.params if param.param_type_name == "option"}
                if any(f"{name}=" in text for name in elsewhere - flags.keys()):
                    continue  # only a command that has that option as well can meet it
                monkeypatch.setattr(console.reporting, "flags", flags)
                told = re.sub(NO_OPTIONS, "", console.in_flags(text, field))
                assert not re.search(r"\b[a-z]+_[a-z_]+\b|\b[a-z]+=|=True\b", told), (path.name, command.name, told)


def _commands_with(field: str | None) -> list[Any]:
    """The commands whose option a field is; all, where there is none."""
    name = {"num_beams": "beams"}.get(field or "", field)
    commands = [command for command in COMMANDS.values() if name is None or any(param.name == name for param in command.params)]
    assert commands, field
    return commands


@pytest.mark.parametrize(
    ("message", "about", "told"),
    [
        ("num_beams must be an integer from 1 to 16, got 99", "num_beams", "--beams must be an integer from 1 to 16, got 99"),
        ("precision must be one of a", "precision", "--precision must be one of a"),
        ("precision int8 is for CPUs", "precision", "precision int8 is for CPUs"),
        ("give text=", None, "give --text"),
        ("in region=(x1, y1, x2, y2), or", None, "in --region x1,y1,x2,y2, or"),
        ("leave region out", None, "leave --region out"),
        ("it passes with allow_unknown_tag=True.", None, "it passes with --allow-unknown-tag."),
        ("scores=True", None, "--scores"),
        ("/home/num_beams/a.png is no image", None, "/home/num_beams/a.png is no image"),
        (
            "expected synthetic:COUNT?seed=S, got synthetic:4?text=1&region=2",
            None,
            "expected synthetic:COUNT?seed=S, got synthetic:4?text=1&region=2",
        ),
        ("num_beams.json is no image", None, "num_beams.json is no image"),
    ],
)
def test_flags_in_messages(monkeypatch: pytest.MonkeyPatch, message: str, about: str | None, told: str) -> None:
    params = GROUP.commands["infer"].params
    monkeypatch.setattr(console.reporting, "flags", {param.name: max(param.opts, key=len) for param in params})
    assert console.in_flags(message, about) == told


# The library's log, and completion


def test_what_the_library_logs_is_told_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    def speak(*words: str) -> None:
        with console.program():
            console.reporting.is_quiet, console.reporting.is_verbose = "-q" in words, "-v" in words
            logging.getLogger("florence2.weights.source").info("found")
            logging.getLogger("florence2.weights.hub").info("fetching")
            logging.getLogger("florence2.weights.hub").warning("broke off")
            logging.getLogger("florence2.weights.hub").error("lost")

    def told(*words: str) -> str:
        with pytest.raises(SystemExit):
            speak(*words)
        return capsys.readouterr().err

    hub = ["fetching", "broke off", "lost"]
    assert told().splitlines() == [f"florence2: {line}" for line in hub]
    assert told("-v").splitlines() == [f"florence2: {line}" for line in ("found", *hub)]
    assert told("-q").splitlines() == ["florence2: lost"]
    assert not any(isinstance(handler, console._LogReporter) for handler in logging.getLogger("florence2").handlers)


def test_what_other_libraries_warn_of_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def warn(is_quiet: bool) -> None:
        with console.program():
            console.reporting.is_quiet = is_quiet
            warnings.showwarning("no room\n  left", UserWarning, "a.py", 1)

    shown = warnings.showwarning
    for is_quiet, told in ((False, "florence2: no room left\n"), (True, "")):
        with pytest.raises(SystemExit):
            warn(is_quiet)
        assert capsys.readouterr().err == told
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("florence2 ", set(GROUP.commands)),
        ("florence2 infer -m florence-2-l", {"florence-2-large", "florence-2-large-ft"}),
        ("florence2 train --model ", set(ALIASES)),
        ("florence2 serve --profile d", {"dedicated"}),
        ("florence2 evaluate --prec", {"--precision"}),
        ("florence2 infer --precision ", {"auto", "fp32", "bf16", "fp16", "int8"}),
    ],
)
def test_the_shell_completes(line: str, expected: set[str]) -> None:
    words = line.split(" ")
    environment = {"_FLORENCE2_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = [sys.executable, "-c", "from florence2.cli import main; main()"]
    done = subprocess.run(program, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    assert set(done.stdout.split()) == expected, done.stderr


def test_a_quiet_command_does_not_silence_the_next_one_in_the_process(cli) -> None:
    assert cli("models", "--quiet")[0] == 0
    assert not console.reporting.is_quiet
