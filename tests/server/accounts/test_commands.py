"""``florence2 keys`` and ``florence2 usage``, and a server that takes what they have made."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from florence2.cli import main
from florence2.server.accounts.database import Database
from florence2.server.accounts.location import default_database
from florence2.server.accounts.totals import Record, Totals
from florence2.server.accounts.usage import add_batch

NOW = 1_790_000_000  # in September 2026


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(words))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_a_key_by_the_command_line(cli: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_DATABASE", url)
    code, key, said = cli("keys", "create", "team-a", "--rate", "60/minute", "--concurrency", "8", "--quota", "100", "--expires", "90d")
    assert (code, said) == (0, "the key team-a, shown this once:\n")
    assert re.fullmatch(r"f2_[A-Za-z0-9]{40}\n", key)
    made = json.loads(cli("keys", "create", "ops", "--role", "manage", "--role", "metrics", "-m", "florence-2-base", "--json")[1])
    assert set(made) == {"name", "key"}
    listed = [json.loads(line) for line in cli("keys", "list", "--json")[1].splitlines()]
    assert [one["name"] for one in listed] == ["team-a", "ops"]
    assert (listed[0]["rate"], listed[0]["concurrency"], listed[0]["quota"]) == ("60/minute", 8, 100)
    assert (listed[1]["roles"], listed[1]["models"]) == (["manage", "metrics"], ["florence-2-base"])
    assert cli("-q", "keys", "rotate", "team-a", "--grace", "1h")[1] != key
    assert "revoked" in cli("keys", "revoke", "ops")[1]
    table = cli("keys", "list")[1]
    assert key.strip() not in table
    assert re.search(r"^team-a +f2_\w{8}…, f2_\w{8}… +infer +60/minute; 8 at once; 100 a month ", table, re.MULTILINE)
    assert re.search(r"^ops .* revoked \d{4}-", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["make", "a"], "keys are for create, list, revoke, rotate, got 'make'; see florence2 keys --help"),
        (["create"], "florence2 keys create takes the name of a key"),
        (["list", "a"], "florence2 keys list takes no name"),
        (["revoke", "a", "--grace", "1h"], "--grace goes with rotate, not with revoke"),
        (["create", "a", "--expires", "soon"], "--expires is a time such as 30m, 12h, 90d or 52w, at most 100 years, got 'soon'"),
        (
            ["create", "a", "--expires", "999999999w"],
            "--expires is a time such as 30m, 12h, 90d or 52w, at most 100 years, got '999999999w'",
        ),
        (["create", "a", "--role", "root"], "a key has one of the roles infer, manage, metrics, or several"),
        (["rotate", "a"], "there is no key named 'a': there are none yet"),
        (["list", "--database", "sqlite:////nowhere/x"], "there is no database sqlite:////nowhere/x; florence2 keys create makes it"),
    ],
)
def test_wrong_calls(cli: Any, words: list[str], told: str) -> None:
    assert cli("keys", *words) == (2, "", f"florence2: {told}\n")


def test_looking_makes_no_database(cli: Any) -> None:
    """A server that finds one lets nobody in without a key."""
    assert cli("keys", "list") == (0, "there are no keys; florence2 keys create NAME makes one\n", "")
    assert cli("usage")[1].startswith("nothing was used since ")
    assert not Path(os.environ["XDG_DATA_HOME"]).exists()


def test_usage_as_table_json_and_csv(cli: Any) -> None:
    with Database(default_database()) as database:
        records = [Record(NOW, "a", "m", 1, 2, 30, 4, 0.5, ("invalid_image",)), Record(NOW, "b", "n", 1, 1, 1, 1, 0.25)]
        add_batch(database, "batch", Totals.of(records))
    since = ("--since", "2026-01-01")
    table = cli("usage", *since)[1].splitlines()
    assert table[0].split() == ["key", "model", "time", "requests", "images", "prompt_tokens", "answer_tokens", "compute_s", "errors"]
    assert table[1].split() == ["a", "m", "2026-09-21", "1", "2", "30", "4", "0.500", "invalid_image=1"]
    assert cli("usage", *since, "--by", "key", "--key", "b", "--csv")[1].splitlines()[1] == "b,,,1,1,1,1,0.250,"
    (row,) = [json.loads(line) for line in cli("usage", *since, "--key", "a", "--by", "month", "--json")[1].splitlines()]
    assert (row["time"], row["images"], row["errors"]) == ("2026-09", 2, {"invalid_image": 1})
    assert cli("usage", "--by", "hour")[2] == "florence2: --by is one of day, month, model, key, got 'hour'\n"
    assert "is a day such as" in cli("usage", "--since", "yesterday")[2]
    assert cli("usage", "--json", "--csv")[0] == 2


def test_serve_takes_the_database_that_is_there(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[Any] = []
    monkeypatch.setattr("florence2.server.http.process.serve", lambda settings, _: taken.append(settings))
    assert cli("serve") == (0, "", "")
    cli("keys", "create", "a")
    assert "every request needs a key" in cli("serve", "--profile", "hosted")[2]  # which needs keys itself
    assert cli("serve", "--database", "none") == (0, "", "")
    other = f"sqlite:///{tmp_path}/other.sqlite"
    assert cli("serve", "--database", other)[0] == 0
    urls = [one.database and one.database.get_secret_value() for one in taken]
    assert urls == [None, default_database(), None, other]
    assert os.environ["XDG_DATA_HOME"] in default_database()
