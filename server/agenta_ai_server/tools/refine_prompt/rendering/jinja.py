"""``jinja2``, as Agenta has it: sandboxed, without a loader, with ``{{$.json.path}}`` filled in around it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, cast

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown
from agenta_ai_server.tools.refine_prompt.rendering.inputs import without_values
from agenta_ai_server.tools.refine_prompt.rendering.jinja_survey import survey
from agenta_ai_server.tools.refine_prompt.rendering.probes import Probe
from agenta_ai_server.tools.refine_prompt.rendering.sandbox import Sandbox
from agenta_ai_server.tools.refine_prompt.rendering.text import MAX_OUTPUT, Rendered, RenderError, marked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from jinja2.compiler import Frame

    from agenta_ai_server.tools.refine_prompt.rendering.inputs import Object
    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Shape

Result = TypeVar("Result")

# Agenta's own idea of what Jinja2 leaves as it is.
_UNTOUCHED = re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{#.*?#\}", re.DOTALL)


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
        self._template, self.names, self.constants = _readable(_compiled, self._tree)

    def survey(self, root: Shape) -> None:
        """Find out what the text does with its inputs, in all of its branches."""
        survey(self._tree, {name: Probe(root.key(name)) for name in sorted(self.names)})

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
        """Return how many tags and comments a text has at most."""
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
    return RenderError(shown(without_values(message), 200).rstrip("."), line)


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
    """Notes which names are looked up in the inputs, and which texts stand in expressions."""

    def __init__(self) -> None:
        super().__init__(SANDBOX, None, None, optimized=False)
        self.names: set[str] = set()
        self.constants: set[str] = set()

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        self.names |= {name for action, name in frame.symbols.loads.values() if action == "resolve" and name}

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802
        super().visit_Const(node, frame)
        if isinstance(node.value, str):
            self.constants.add(node.value)


def _compiled(tree: nodes.Template) -> tuple[jinja2.Template, frozenset[str], frozenset[str]]:
    """Compile a text, and return the names of its inputs too, and the texts in its expressions."""
    generator = _Generator()
    generator.visit(tree)
    code = compile(generator.stream.getvalue(), "<template>", "exec")  # type: ignore[attr-defined]
    template = jinja2.Template.from_code(SANDBOX, code, SANDBOX.make_globals(None))
    names = generator.names
    if functions := names & SANDBOX.globals.keys():
        # One like that of a function is an input unless it is only called.
        called = {id(call.node) for call in tree.find_all(nodes.Call)}
        names -= functions - {name.name for name in tree.find_all(nodes.Name) if id(name) not in called}
    return template, frozenset(names - _locals(tree)), frozenset(generator.constants)


def _locals(tree: nodes.Template) -> set[str]:
    """Return the names that each branch of a condition assigns before they are used. Jinja2 takes them for inputs."""
    found, uses = _assigned_before_use(tree.body), _uses(tree)
    for loop in tree.find_all(nodes.For):
        inside = _uses(loop)
        found |= {name for name in _assigned_before_use(loop.body) if inside[name] == uses[name]}
    return found


def _assigned_before_use(body: Sequence[nodes.Node]) -> set[str]:
    used, found = set[str](), set[str]()
    for node in body:
        used |= _uses(node).keys()
        found |= _assigned([node]) - used
    return found


def _assigned(body: Sequence[nodes.Node]) -> set[str]:
    """Return the names that have values in any case after some statements."""
    found = set[str]()
    for node in body:
        if isinstance(node, nodes.Assign | nodes.AssignBlock):
            found |= {name.name for name in (node.target, *node.target.find_all(nodes.Name)) if _is_stored(name)}
        elif isinstance(node, nodes.If) and node.else_:
            branches = (node.body, *(each.body for each in node.elif_), node.else_)
            found |= set[str].intersection(*map(_assigned, branches))
    return found


def _is_stored(node: nodes.Node) -> TypeGuard[nodes.Name]:
    return isinstance(node, nodes.Name) and node.ctx == "store"


def _uses(node: nodes.Node) -> Counter[str]:
    return Counter(name.name for name in node.find_all(nodes.Name) if name.ctx == "load")


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


def _uses_chance(tree: nodes.Template) -> bool:
    filters = any(each.name == "random" for each in tree.find_all(nodes.Filter))
    return filters or any(each.name == "lipsum" for each in tree.find_all(nodes.Name))


SANDBOX: Final = Sandbox()
