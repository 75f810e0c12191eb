"""``jinja2``, as Agenta has it: sandboxed, without a loader, with ``{{$.json.path}}`` filled in around it."""

from __future__ import annotations

import contextlib
import re
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown
from agenta_ai_server.tools.refine_prompt.rendering.inputs import CHANCE, PLAIN, Object, note_miss
from agenta_ai_server.tools.refine_prompt.rendering.probes import Attribute, Probe, either, recorded, use_numbers
from agenta_ai_server.tools.refine_prompt.rendering.text import (
    MAX_OUTPUT,
    MAX_TOKENS,
    Rendered,
    RenderError,
    TooComplex,
    marked,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set

    from jinja2.compiler import Frame
    from jinja2.lexer import Token, TokenStream
    from jinja2.runtime import Context

    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

Result = TypeVar("Result")

# Bounds on what one operation makes: the width of a field, the length of a range or of a repetition.
_MOST: Final = 10_000
_WIDE = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "wordwrap", "zfill"})
_HUGE = re.compile(r"\d{5}")
# Agenta's own idea of what Jinja2 leaves as it is.
_UNTOUCHED = re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{#.*?#\}", re.DOTALL)

# What filters and tests tell of the value that they are applied to; "through" are those that pass on its elements.
_FILTERS: Final = {
    **dict.fromkeys(("capitalize", "center", "indent", "lower", "replace", "striptags", "title"), "text"),
    **dict.fromkeys(("trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"), "text"),
    **dict.fromkeys(("abs", "filesizeformat", "float", "int", "round"), "number"),
    **dict.fromkeys(("batch", "dictsort", "first", "groupby", "items", "join", "last", "list", "map"), "through"),
    **dict.fromkeys(("max", "min", "reject", "rejectattr", "reverse", "select", "selectattr"), "through"),
    **dict.fromkeys(("slice", "sort", "sum", "unique", "default", "d", "random"), "through"),
    **dict.fromkeys(("length", "count"), "measure"),
}
_TESTS: Final = {
    "string": "text",
    "mapping": "mapping",
    **dict.fromkeys(("iterable", "sequence"), "list"),
    **dict.fromkeys(("number", "integer", "float", "odd", "even", "divisibleby"), "number"),
}

_COMPARED: Final[dict[str, tuple[Any, ...]]] = {
    "none": (None,),
    "true": (True,),
    "false": (False,),
    "boolean": (True, False),
}


class _Bounded(Extension):
    """Stops reading a text that has too many tokens."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count == MAX_TOKENS:
                raise TooComplex
            yield token


class Sandbox(SandboxedEnvironment):
    """Agenta's environment, but for bounds on what takes long, and for chance, whose result depends on the mode."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(optimized=False, extensions=[_Bounded])
        self.filters = {name: _bounded(function, name) for name, function in self.filters.items()}
        self.mode = PLAIN
        self.filters["random"] = self._random
        self.globals["range"] = _range
        self.globals["lipsum"] = self._lipsum
        self.globals["dict"] = _dict

    def _random(self, sequence: Any) -> Any:
        found = list(sequence)
        if not found:
            return self.undefined("No random item, sequence was empty.")
        return found[-1 if self.mode == CHANCE else 0]

    def _lipsum(self, *_args: Any, **_kwargs: Any) -> str:
        return "Lorem ipsum. " * (50 if self.mode == CHANCE else 1)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operation that could take long."""
        sizes = [len(each) if isinstance(each, str | list | tuple) else each for each in (left, right)]
        numbers = all(isinstance(size, int) for size in sizes)
        if operator == "*" and numbers and not isinstance(left, int) * isinstance(right, int):
            _refuse(sizes[0] * sizes[1] > _MOST * 10)
        if operator == "**" or (operator == "*" and numbers):
            _refuse(any(isinstance(each, int) and abs(each) > 10**100 for each in (left, right)))
        if operator == "**" and numbers:
            _refuse(abs(sizes[1]) > 1000)
        if operator == "%" and isinstance(left, str):
            _refuse(bool(_HUGE.search(left)))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what a template may call."""
        if getattr(__obj, "__name__", "") in _WIDE:
            _check_width(args, kwargs)
        formatted = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
        _refuse(isinstance(formatted, str) and bool(_HUGE.search(formatted)))
        return super().call(__context, __obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute or an item, and note one that isn't there."""
        return _noted(super().getattr(obj, attribute), obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item or an attribute, and note one that isn't there."""
        return _noted(super().getitem(obj, argument), obj, argument)


class Survey(Sandbox):
    """An environment whose inputs are probes: nothing is decided, and nothing raises."""

    def __init__(self) -> None:
        super().__init__()
        for name, function in self.filters.items():
            self.filters[name] = recorded(function, name, _FILTERS.get(name, ""))
        self.filters["items"] = lambda value: value.items()
        for name in ("default", "d"):
            self.filters[name] = _defaulted
        self.filters["__either"] = either
        self.filters["__both"] = _both
        self.filters["__seen"] = _seen
        self.tests = {name: _asked(name) for name in self.tests}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what stands for an attribute."""
        return Attribute.of(obj, attribute) if isinstance(obj, Probe) else super().getattr(obj, attribute)


class JinjaText:
    """One text in Jinja2.

    Args:
        text: The text itself.
        places: The JSONPaths of all texts, each with a number.

    Raises:
        TemplateSyntaxError: Agenta could not render it, whatever the inputs.
    """

    def __init__(self, text: str, places: dict[str, int]) -> None:
        masked, self.paths = _masked(text, places)
        self.may_use_chance = "random" in text or "lipsum" in text
        self._tree = _readable(_parsed, masked)
        self.uses_chance = self.may_use_chance and _uses_chance(self._tree)
        self._template, self.names = _readable(_compiled, self._tree)

    def survey(self, root: Shape) -> None:
        """Find out what the text does with its inputs, in all of its branches."""
        inputs = {name: Probe(root.key(name)) for name in self.names}
        # What was found until something failed is found.
        with contextlib.suppress(Exception):
            _run(SURVEY.from_string(_AllBranches().visit(self._tree)), inputs)

    def render(self, inputs: Object, mode: str) -> Rendered:
        """Render the text in a mode of the inputs.

        Raises:
            RenderError: Agenta could not render it with these inputs.
        """
        SANDBOX.mode = mode
        try:
            return Rendered.of(_run(self._template, inputs))
        except (RenderError, MemoryError):
            raise
        except OSError:
            # The worker opens no files, not even those of a codec, whose path nobody is to see.
            raise RenderError("it needs a file, such as that of a rare codec, which can't be loaded") from None
        except Exception as error:
            raise _explained(error, self._template) from None

    @staticmethod
    def tags(text: str) -> int:
        """Return how many tags and comments a text has at the most."""
        return sum(map(text.count, ("{{", "{%", "{#")))

    @staticmethod
    def compared(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
        """Return the names that were lost, and those that were invented."""
        return old - new, new - old


def _run(template: jinja2.Template, inputs: dict[str, Any]) -> str:
    length, pieces = 0, []
    for piece in template.root_render_func(template.new_context(inputs)):
        length += len(piece)
        if length > MAX_OUTPUT:
            raise RenderError("it renders to too much text")
        pieces.append(piece)
    return "".join(pieces)


def _explained(error: Exception, template: jinja2.Template) -> RenderError:
    line, traceback = 0, error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    message = str(error) or type(error).__name__
    if "builtin_function_or_method" in message:
        message = "an object's own method hides its item of the same name: write ['items'] for .items"
    return RenderError(shown(message, 200).rstrip("."), line)


def _masked(text: str, places: dict[str, int]) -> tuple[str, frozenset[str]]:
    """Hide the JSONPaths of a text outside of comments and raw blocks."""
    pieces, found, at = [], frozenset[str](), 0
    for start, end in [*(match.span() for match in _UNTOUCHED.finditer(text)), (len(text), len(text))]:
        masked, paths = jsonpath.mask(text, places, at, start)
        pieces += [masked, text[start:end]]
        found, at = found | paths, end
    return "".join(pieces), found


def _readable(work: Callable[..., Result], *args: Any) -> Result:
    """Return what parsing or compiling gives, or say that the text can't be read."""
    try:
        return work(*args)
    except jinja2.TemplateSyntaxError as error:
        fault = (error.message or "").rstrip(".")
        raise TemplateSyntaxError(f"Jinja2 can't read this: {shown(fault, 200)}.", error.lineno) from None
    except (SyntaxError, RecursionError, MemoryError):
        raise TemplateSyntaxError("This is nested too deeply.", 1) from None
    except (ValueError, OverflowError):
        raise TemplateSyntaxError("Jinja2 can't read this: a number is too long.", 1) from None


def _parsed(text: str) -> nodes.Template:
    return cast("nodes.Template", _mark(SANDBOX.parse(text)))


class _Generator(CodeGenerator):
    """Notes which names are looked up in the inputs."""

    def __init__(self) -> None:
        super().__init__(SANDBOX, None, None, optimized=False)
        self.names: set[str] = set()

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        self.names |= {name for action, name in frame.symbols.loads.values() if action == "resolve" and name}


def _compiled(tree: nodes.Template) -> tuple[jinja2.Template, frozenset[str]]:
    """Compile a text, and return the names of its inputs too."""
    generator = _Generator()
    generator.visit(tree)
    code = compile(generator.stream.getvalue(), "<template>", "exec")  # type: ignore[attr-defined]
    template = jinja2.Template.from_code(SANDBOX, code, SANDBOX.make_globals(None))
    names = generator.names
    if functions := names & SANDBOX.globals.keys():
        # One like that of a function is an input unless it is only called.
        called = {id(call.node) for call in tree.find_all(nodes.Call)}
        names -= functions - {name.name for name in tree.find_all(nodes.Name) if id(name) not in called}
    return template, frozenset(names)


# Statements whose content goes straight into the output.
_STRAIGHT = nodes.If | nodes.For | nodes.With | nodes.Block | nodes.Template | nodes.ScopedEvalContextModifier


def _mark(node: Any) -> Any:
    """Mark what stands in a text literally, where it goes straight into the output."""
    for name in ("body", "else_", "elif_"):
        for child in getattr(node, name, ()):
            if isinstance(child, nodes.Output):
                marks = (nodes.TemplateData(marked("")), nodes.TemplateData(marked("")))
                literal = [each for each in child.nodes for each in (_literal(each), marks[0])]
                child.nodes = [marks[1], *literal]
            elif isinstance(child, _STRAIGHT):
                _mark(child)
    return node


def _literal(node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.TemplateData):
        return nodes.TemplateData(marked(node.data), lineno=node.lineno)
    return node


class _AllBranches(NodeTransformer):
    """Makes a template run through all of its branches."""

    def visit_If(self, node: nodes.If) -> Any:  # noqa: N802
        # The first branch comes last, since what it assigns is what is mostly meant.
        node.elif_.reverse()
        self.generic_visit(node)
        return [*_otherwise(node), *node.elif_, nodes.If(_always(node.test), node.body, [], [], lineno=node.lineno)]

    def visit_For(self, node: nodes.For) -> Any:  # noqa: N802
        self.generic_visit(node)
        node.test = _always(node.test) if node.test else None
        after, node.else_ = _otherwise(node), []
        return [node, *after]

    def visit_CondExpr(self, node: nodes.CondExpr) -> Any:  # noqa: N802
        self.generic_visit(node)
        rest = [_always(node.test), *([node.expr2] if node.expr2 else [])]
        return _filter(node.expr1, "__either", rest)

    def visit_And(self, node: Any) -> Any:  # noqa: N802
        self.generic_visit(node)
        return _filter(node.left, "__both", [node.right])

    visit_Or = visit_And  # noqa: N815


def _otherwise(node: nodes.If | nodes.For) -> list[nodes.Node]:
    """Return the branch ``else``. It stays one, as an unknown filter in a branch is no fault until it is applied."""
    return [nodes.If(nodes.Const(True), node.else_, [], [], lineno=node.lineno)] if node.else_ else []


def _filter(node: nodes.Expr, name: str, args: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, args, [], None, None, lineno=node.lineno)


def _always(test: Any) -> nodes.Expr:
    return _filter(test, "__seen", [])


def _seen(value: Any) -> bool:
    bool(value)
    return True


def _both(*values: Any) -> Any:
    for value in values:
        bool(value)
    return either(*values)


def _defaulted(value: Any, default: Any = "", *_args: Any, **_kwargs: Any) -> Any:
    if isinstance(value, Probe):
        for shape in value.shapes:
            shape.decides = True
    return either(value, default) if value is not None else default


def _asked(name: str) -> Callable[..., bool]:
    """A test that records what is asked of a probe."""

    def ask(value: Any, *args: Any) -> bool:
        if isinstance(value, Probe):
            for shape in value.shapes:
                shape.decides = True
            value.use(_TESTS.get(name, ""))
            others = args[0] if name == "in" and args and isinstance(args[0], list | tuple) else args
            for other in _COMPARED.get(name, others):
                value.compare(other)
        use_numbers(name, args, {})
        if name == "in" and args and isinstance(args[0], Probe):
            args[0].search(value)
        return True

    return ask


def _noted(value: Any, obj: Any, key: Any) -> Any:
    if isinstance(value, Undefined):
        note_miss(obj, key)
    return value


def _bounded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    if name not in _WIDE and name != "format":
        return function

    @wraps(function)
    def apply(*args: Any, **kwargs: Any) -> Any:
        if name == "format":
            _refuse(any(isinstance(arg, str) and bool(_HUGE.search(arg)) for arg in args[:1]))
        _check_width(args, kwargs)
        return function(*args, **kwargs)

    return apply


def _check_width(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _refuse(any(isinstance(each, int) and abs(each) > _MOST for each in (*args, *kwargs.values())))


def _uses_chance(tree: nodes.Template) -> bool:
    filters = any(each.name == "random" for each in tree.find_all(nodes.Filter))
    return filters or any(each.name == "lipsum" for each in tree.find_all(nodes.Name))


def _dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
    if not args or not isinstance(args[0], Object):
        return dict(*args, **kwargs)
    made = args[0].copy()
    made.update(**kwargs)
    return made


def _range(*args: int) -> range:
    found = range(*args)
    _refuse(len(found) > _MOST)
    return found


def _refuse(too_much: bool) -> None:
    if too_much:
        raise SecurityError(f"it creates a value with more than {_MOST:,} elements")


SANDBOX: Final = Sandbox()
SURVEY: Final = Survey()
