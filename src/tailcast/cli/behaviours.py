"""Verbs that list what can be measured: shipped behaviours and known query sets."""

import json as jsonlib
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from tailcast.behaviours import load_behaviour, shipped_behaviours
from tailcast.cli.screen import plain_table, result_screen
from tailcast.query_sets import QUERY_SETS

__all__ = ["list_behaviours", "list_query_sets"]

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")]


def list_behaviours(*, json: Json = False) -> None:
    """List the behaviours that ship with tailcast, for --behaviour."""
    found = [load_behaviour(name) for name in shipped_behaviours()]
    if json:
        for one in found:
            print(jsonlib.dumps(asdict(one), ensure_ascii=False))
        return
    _print_table(
        ("behaviour", "queries", "pairs", "judge", "licence", "what it is"),
        [
            (one.name, len(one.queries), len(one.pairs), one.judge, one.licence, one.description)
            for one in found
        ],
    )


def list_query_sets(*, json: Json = False) -> None:
    """List the query sets that --queries knows by name, with their licences."""
    found = QUERY_SETS.values()
    if json:
        for one in found:
            print(jsonlib.dumps(asdict(one)))
        return
    _print_table(
        ("query set", "hub", "licence", "reference"),
        [(one.name, one.hub[0], one.licence, one.reference) for one in found],
    )


def _print_table(names: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    table = plain_table(*names)
    for row in rows:
        table.add_row(*map(str, row))
    result_screen().print(table)
