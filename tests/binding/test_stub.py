"""The hand-written stub and the compiled module agree: names, parameters, and a docstring each."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import overlaynet
import pytest
from overlaynet import _core

STUB = ast.parse(Path(overlaynet.__file__).with_name("_core.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
# Of overloads the last is the fullest, and stands for all.
METHODS = [
    pytest.param(name, node, id=f"{name}.{node.name}")
    for name, owner in CLASSES.items()
    for node in {node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)}.values()
]


def public(owner: object) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def shape(node: ast.FunctionDef) -> list[tuple[str, str, bool]]:
    """Each parameter as (name, kind, whether it has a default), without self."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    kinds = ["POSITIONAL_ONLY"] * len(arguments.posonlyargs) + ["POSITIONAL_OR_KEYWORD"] * len(arguments.args)
    first_default = len(positional) - len(arguments.defaults)
    found = [(a.arg, kind, i >= first_default) for i, (a, kind) in enumerate(zip(positional, kinds, strict=True))]
    found += [] if arguments.vararg is None else [(arguments.vararg.arg, "VAR_POSITIONAL", False)]
    found += [(a.arg, "KEYWORD_ONLY", d is not None) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [parameter for parameter in found if parameter[0] not in ("self", "cls")]


def real_shape(function: object) -> list[tuple[str, str, bool]]:
    assert callable(function)
    return [
        (p.name, p.kind.name, p.default is not p.empty)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]


def test_module_and_stub_have_the_same_names() -> None:
    assert public(_core) == {*FUNCTIONS, *CLASSES}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_parameters_that_the_stub_says(name: str) -> None:
    assert real_shape(getattr(_core, name)) == shape(FUNCTIONS[name])
    assert ast.get_docstring(FUNCTIONS[name])


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_members_that_the_stub_says(name: str) -> None:
    stubbed = {node.name for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    stubbed |= {n.target.id for n in CLASSES[name].body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    assert public(getattr(_core, name)) == {member for member in stubbed if not member.startswith("_")}
    assert ast.get_docstring(CLASSES[name])


@pytest.mark.parametrize(("owner", "node"), METHODS)
def test_methods_have_the_parameters_that_the_stub_says(owner: str, node: ast.FunctionDef) -> None:
    decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    if "property" in decorators or (node.name.startswith("__") and node.name != "__new__"):
        assert hasattr(getattr(_core, owner), node.name)
        return
    target = getattr(_core, owner)
    found = real_shape(target if node.name == "__new__" else getattr(target, node.name))
    if "overload" in decorators:
        # One overload has the default, another has not.
        assert [parameter[:2] for parameter in found] == [parameter[:2] for parameter in shape(node)]
        return
    assert found == shape(node)
