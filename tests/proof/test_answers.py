"""Findings and survivors are answered by people: the documents that hold the answers, and what is done to them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proof")]

import mutation  # noqa: E402
import slither_findings  # noqa: E402
from slither_findings import Finding  # noqa: E402

ONE = Finding("0123456789", "unused-return", "Medium", "High", "`A.f`: `g()`", "A.f ignores")
OTHER = Finding("abcdef0123", "assembly", "Informational", "High", "`B.h`", "B.h uses")


def test_a_new_finding_is_a_problem_until_a_person_answers() -> None:
    document = slither_findings.rewritten([ONE, OTHER], "# Slither\n")
    assert len(slither_findings.problems([ONE, OTHER], document)) == 2
    answered = document.replace("| ? |", "| fine |")
    assert slither_findings.problems([ONE, OTHER], answered) == []
    assert slither_findings.rewritten([ONE, OTHER], answered) == answered


def test_an_answer_without_a_finding_is_a_problem_and_goes_away() -> None:
    document = slither_findings.rewritten([ONE, OTHER], "# Slither\n").replace("| ? |", "| fine |")
    (problem,) = slither_findings.problems([ONE], document)
    assert OTHER.id in problem
    assert OTHER.id not in slither_findings.rewritten([ONE], document)


def test_text_of_people_stays_and_an_answer_moves_with_its_place() -> None:
    document = slither_findings.rewritten([ONE], "# Slither\n\nWhat it is.\n")
    document = document.replace("| id |", "All of these are fine.\n\n| id |").replace("| ? |", "| fine |")
    moved = ONE._replace(id="9876543210")
    again = slither_findings.rewritten([moved], document)
    assert "What it is." in again
    assert "All of these are fine." in again
    assert slither_findings.answers(again)[moved.id].answer == "fine"
    other_check = moved._replace(check="assembly")
    assert (
        slither_findings.answers(slither_findings.rewritten([other_check], document))[moved.id].answer == "?"
    )


def survivor(**changes: Any) -> dict[str, Any]:
    one = {"id": "01234567", "file": "contracts/A.sol", "line": 3, "in": "A.f", "operator": "relational"}
    return {**one, "before": "<", "after": "<=", "result": "survived", "by": "", **changes}


def test_a_survivor_is_a_problem_until_it_is_answered() -> None:
    state = {"seed": 1, "drawn_from": 9, "mutants": [survivor(), survivor(id="89abcdef", result="killed")]}
    document = mutation.report(state, "")
    assert "1 killed (50.0 % of those judged), 1 survived" in document
    assert mutation.problems(state, document) == ["not answered: 01234567"]
    answered = document.replace("| ? |", "| both are the same here |")
    assert mutation.problems(state, answered) == []
    assert mutation.report(state, answered) == answered
    killed = {**state, "mutants": [survivor(result="killed")]}
    assert mutation.problems(killed, answered) == ["no longer a survivor: 01234567"]


def test_every_survivor_of_the_last_run_is_answered() -> None:
    state = json.loads(mutation.STATE.read_text())
    assert sum(one["result"] in mutation.JUDGED for one in state["mutants"]) >= 100
    assert mutation.problems(state, mutation.DOCUMENT.read_text()) == []
    assert mutation.report(state, mutation.DOCUMENT.read_text()) == mutation.DOCUMENT.read_text()
