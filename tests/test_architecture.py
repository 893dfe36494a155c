"""The package keeps the shape that CONTRIBUTING.md promises; imports are import-linter's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tailcast"
MODULES = sorted(SOURCE.rglob("*.py"))
VERBS = "cli/main.py"  # a flag is a parameter there


def functions(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node):
    """Lines of a function's body, its docstring apart."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_fits_its_page_and_a_function_its_screen(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert not text or ast.get_docstring(ast.parse(text)), "says no question that it answers"
    for node in functions(path):
        assert body_lines(node) <= 40, node.name
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [one.arg for one in arguments if one.arg not in ("self", "cls")]
        assert len(named) <= 8 or str(path).endswith(VERBS), node.name


def kind(name):
    """Constants, then classes, then functions, as ruff sorts them."""
    return not name.isupper(), name[0].islower(), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_public_names_are_listed_in_order_and_exist(path):
    tree = ast.parse(path.read_text("utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    assert len(listed) == 1 or not tree.body
    for names in listed:
        assert names == sorted(set(names), key=kind)
        text = path.read_text("utf-8")
        assert all(text.count(name) > 1 for name in names)


def test_every_public_name_of_the_package_can_be_had():
    import tailcast

    assert sorted(tailcast._HOMES) == tailcast.__all__
    assert all(getattr(tailcast, name) is not None for name in tailcast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tailcast.nothing  # noqa: B018


def test_the_reference_is_what_the_command_line_says_of_itself():
    """Mend with make docs."""
    scripts = str(SOURCE.parent.parent / "scripts")
    code = f"import sys; sys.path.insert(0, {scripts!r}); import write_cli_reference as page; "
    code += "sys.exit(page.reference() != page.PAGE.read_text('utf-8'))"
    subprocess.run([sys.executable, "-c", code], check=True)
