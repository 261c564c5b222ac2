"""Generated arithmetic word problems of one and two steps.

A problem is put together from sentence parts: a fact ("Tom has 12 pens."), one or two events
("Ann gives Tom 7 more.") and a question. Held-out problems differ from training ones twice:
their combination of parts (the template) and their combination of numbers never occur in
training, though every part and every number does. The program that solves a problem takes its
numbers in the order of the text.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Operator = Literal["+", "-", "*", "//"]

NAMES = ("Tom", "Ann", "Sam", "Mia", "Ben", "Eva", "Max", "Zoe", "Leo", "Ida", "Jim", "Kay")
THINGS = ("pens", "cards", "coins", "shells", "stamps", "marbles", "apples", "books", "beads")
BOXES = ("boxes", "bags", "jars", "crates", "bowls", "chests")

HAVE = (
    "{name} has {0} {things}.",
    "{name} starts with {0} {things}.",
    "{name} owns {0} {things}.",
    "{name} brings {0} {things}.",
)
GROUPS = (
    "{name} has {0} {boxes} of {1} {things}.",
    "{name} buys {0} {boxes} with {1} {things} in each.",
    "{name} fills {0} {boxes} with {1} {things} each.",
    "{name} packs {0} {things} into each of {1} {boxes}.",
)
EVENTS: dict[Operator, tuple[str, ...]] = {
    "+": (
        "Then {name} finds {0} more.",
        "{friend} gives {name} {0} more.",
        "Later {0} more arrive.",
        "{name} buys another {0}.",
    ),
    "-": (
        "Then {name} loses {0} of them.",
        "{name} gives {0} to {friend}.",
        "Later {0} of them break.",
        "{name} throws {0} away.",
    ),
    "*": (
        "{name} sells them for {0} euros each.",
        "Each one is worth {0} euros.",
        "{name} trades each one for {0} euros.",
        "{friend} pays {0} euros for each.",
    ),
    "//": (
        "{name} shares them equally among {0} friends.",
        "{name} splits them evenly into {0} parts.",
        "Then {0} friends share them equally.",
        "{name} deals them evenly to {0} friends.",
    ),
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    "count": (
        "How many {things} does {name} have now?",
        "How many {things} are there now?",
        "What is the number of {things} now?",
    ),
    "*": (
        "How many euros does {name} get?",
        "How many euros are they worth?",
        "How many euros is that?",
    ),
    "//": (
        "How many {things} are in each part?",
        "How many does each get?",
        "What is the number of {things} for each?",
    ),
}
RANGES: dict[Operator, tuple[int, int]] = {"+": (2, 80), "-": (2, 80), "*": (2, 20), "//": (2, 9)}
CONFUSED_WITH: dict[Operator, Operator] = {"+": "*", "-": "+", "*": "+", "//": "-"}
LARGEST = 999


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question, the program that answers it, and one whose last operator is wrong."""

    question: str
    numbers: tuple[int, ...]
    operators: tuple[Operator, ...]
    template: tuple[str, ...]
    answer: int
    wrong_answer: int

    @property
    def program(self) -> str:
        """The Python program that prints the answer."""
        return f"print({expression(self.numbers, self.operators)})"

    @property
    def wrong_program(self) -> str:
        """The same with its last operator confused with another one."""
        *first, last = self.operators
        return f"print({expression(self.numbers, (*first, CONFUSED_WITH[last]))})"


def expression(numbers: tuple[int, ...], operators: tuple[Operator, ...]) -> str:
    """Write `numbers` joined by `operators`, evaluated from left to right."""
    text = str(numbers[0])
    for index, (operator, number) in enumerate(zip(operators, numbers[1:], strict=True)):
        if index and operator in ("*", "//") and operators[index - 1] in ("+", "-"):
            text = f"({text})"
        text += f"{operator}{number}"
    return text


def generate(*, held_out: bool, count: int, seed: int, two_step_share: float) -> Iterator[Problem]:
    """Yield `count` different problems, all held out or none; the same ones for the same seed."""
    rng = random.Random(f"calculator {held_out} {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        problem = _draw(rng, steps=2 if rng.random() < two_step_share else 1)
        where = (held_out_template(problem), held_out_numbers(problem))
        if where == (held_out, held_out) and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def held_out_template(problem: Problem) -> bool:
    """Whether this combination of sentence parts is kept out of training: one in four is."""
    parts = [part for group in (HAVE, GROUPS, *EVENTS.values()) for part in group]
    asked = [part for group in QUESTIONS.values() for part in group]
    code = sum((parts + asked).index(part) for part in problem.template)
    return code % 4 == 0


def held_out_numbers(problem: Problem) -> bool:
    """Whether this combination of numbers is kept out of training: one in five is."""
    return sum(n * weight for n, weight in zip(problem.numbers, (1, 3, 7), strict=False)) % 5 == 0


def _draw(rng: random.Random, *, steps: int) -> Problem:
    """Draw the structure of a problem, then numbers until they come out well."""
    last = rng.choice(tuple(EVENTS))
    grouped = rng.random() < 0.5 and (steps == 2 or last == "*")
    operators: tuple[Operator, ...] = (last,)
    if steps == 2:
        operators = ("*" if grouped else rng.choice(("+", "-")), last)
    events = operators[1:] if grouped else operators
    parts = [rng.choice(GROUPS if grouped else HAVE), *(rng.choice(EVENTS[e]) for e in events)]
    parts.append(rng.choice(QUESTIONS[last if events and last in QUESTIONS else "count"]))
    first = (2, 20) if grouped else (2, 99)
    numbers, answer, wrong_answer = _draw_numbers(rng, operators, first=first)
    return Problem(
        question=_write(rng, parts, list(numbers)),
        numbers=numbers,
        operators=operators,
        template=tuple(parts),
        answer=answer,
        wrong_answer=wrong_answer,
    )


def _draw_numbers(
    rng: random.Random, operators: tuple[Operator, ...], *, first: tuple[int, int]
) -> tuple[tuple[int, ...], int, int]:
    """Draw numbers whose answer is whole, positive, and not the wrong program's answer."""
    confused = (*operators[:-1], CONFUSED_WITH[operators[-1]])
    while True:
        numbers = (rng.randint(*first), *(rng.randint(*RANGES[operator]) for operator in operators))
        values = _evaluate(numbers, operators)
        wrong_answer = _evaluate(numbers, confused)[-1]
        whole = all(value == int(value) and 0 < value <= LARGEST for value in values)
        if whole and values[-1] != wrong_answer:
            return numbers, int(values[-1]), int(wrong_answer)


def _evaluate(numbers: tuple[int, ...], operators: tuple[Operator, ...]) -> list[Fraction]:
    """Return the value after each operator, with exact division."""
    values = [Fraction(numbers[0])]
    for operator, number in zip(operators, numbers[1:], strict=True):
        before = values[-1]
        results = {
            "+": before + number,
            "-": before - number,
            "*": before * number,
            "//": before / number,
        }
        values.append(results[operator])
    return values


def _write(rng: random.Random, parts: list[str], numbers: list[int]) -> str:
    name, friend = rng.sample(NAMES, 2)
    words = {"name": name, "friend": friend}
    words |= {"things": rng.choice(THINGS), "boxes": rng.choice(BOXES)}
    sentences = []
    for part in parts:
        used = [numbers.pop(0) for mark in ("{0}", "{1}") if mark in part]
        sentences.append(part.format(*used, **words))
    return " ".join(sentences)
