"""GSM8K's solutions turned into programs.

A solution carries calculator notes, `Natalia sold 48/2 = <<48/2=24>>24 clips`. Each note becomes
a line of Python; a number that an earlier note computed becomes the variable that holds it. The
program is evaluated here as Python would, and solutions whose notes do not lead to the answer are
left out, so that every demonstration shows what the tool would really print.
"""

import ast
import operator
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from agentrl.rewards.gsm8k import answer_is

_NOTE = re.compile(r"<<([^<>=]+)=([^<>]+)>>")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Python code and what running it prints."""

    code: str
    output: str


def program_of(solution: str, answer: str) -> Program | None:
    """Return the program of a solution; None when its notes do not compute the answer."""
    notes = _NOTE.findall(solution.replace(",", "").replace("$", ""))
    if not 0 < len(notes) <= len(string.ascii_lowercase):
        return None
    values: dict[str, float] = {}
    lines = []
    for name, (expression, _) in zip(string.ascii_lowercase, notes, strict=False):
        try:
            source = _with_variables(_PERCENT.sub(r"\1/100", expression.strip()), values)
            values[name] = _evaluate(ast.parse(source, mode="eval").body, values)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return None
        lines.append(f"{name} = {source}")
    last = list(values)[-1]
    output = str(values[last])
    if not answer_is(output, answer):
        return None
    return Program(code="\n".join([*lines, f"print({last})"]), output=output)


def _with_variables(expression: str, values: dict[str, float]) -> str:
    """Replace numbers that earlier lines computed by their variables, the latest first."""
    names = {value: name for name, value in values.items()}

    def replace(match: re.Match[str]) -> str:
        return names.get(float(match[0]), match[0])

    return _NUMBER.sub(replace, expression)


def _evaluate(node: ast.expr, values: dict[str, float]) -> float:
    """Evaluate arithmetic as Python does.

    Raises:
        ValueError: it is not arithmetic.
    """
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, values)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    raise ValueError(f"not arithmetic: {ast.dump(node)}")
