"""What the command line prints: one result on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from zhiyi.types import to_hex

MAX_CELL: Final = 2_000  # characters of one value shown to people; JSON is never cut

Progress = Callable[[int, int], None]


def plain(value: object) -> str:
    """Text that cannot steer a terminal: control and bidirectional characters are shown as escapes."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_CELL:
        text = text[:MAX_CELL] + " …"
    return "".join(
        c
        if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
        else c.encode("unicode_escape").decode()
        for c in text
    )


def jsonable(value: Any) -> Any:
    """The value as JSON holds it: bytes as 0x-hex, models and tuples unfolded. Integers stay exact integers."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):  # a NamedTuple
        return jsonable(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


class Console:
    """Prints for people, or one JSON document when `as_json`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, value: Any, *, title: str = "") -> None:
        """The command's result: a mapping, a model, or a sequence of them."""
        data = jsonable(value)
        if self.as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        elif isinstance(data, list):
            self._table(data, title)
        else:
            if title:
                sys.stdout.write(f"{plain(title)}\n")
            _fields(data if isinstance(data, dict) else {"": data}, 0)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A remark for people, on standard error; silent with JSON."""
        if not self.as_json:
            sys.stderr.write(f"{plain(text)}\n")

    def error(self, kind: str, message: str, details: Mapping[str, Any]) -> None:
        """An error: on standard error, and as the JSON document with JSON."""
        if self.as_json:
            document = {"error": {"kind": kind, "message": message, **jsonable(details)}}
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        sys.stderr.write(f"error: {plain(message)}\n")

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A bar on standard error while something long runs; nothing without a terminal."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Terminal(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total or None)

    def _table(self, rows: Sequence[Any], title: str) -> None:
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        if not rows:
            sys.stdout.write(f"{plain(title)}: none\n" if title else "none\n")
            return
        if not all(isinstance(row, dict) for row in rows):
            for row in rows:
                sys.stdout.write(f"{plain(row)}\n")
            return
        table = Table(title=Text(plain(title)) if title else None, title_justify="left")
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in names:
            table.add_column(Text(plain(name)), overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(_cell(row.get(name)))) for name in names))
        Terminal(file=sys.stdout, soft_wrap=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _fields(data: Mapping[str, Any], depth: int) -> None:
    width = max((len(name) for name in data), default=0)
    for name, value in data.items():
        indent = "  " * depth
        if isinstance(value, dict) and value:
            sys.stdout.write(f"{indent}{plain(name)}\n")
            _fields(value, depth + 1)
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                sys.stdout.write(f"{indent}{plain(name)} {number}\n")
                _fields(item, depth + 1)
        else:
            sys.stdout.write(f"{indent}{plain(name):<{width}}  {plain(_cell(value))}\n")
