"""The command-line parser."""

from __future__ import annotations

import argparse
import re
import sys
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from agenta_ai.cli.access import DEFAULT_TARGET
from agenta_ai.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

ENVIRONMENT = """\
environment:
  AGENTA_AI_TARGET        the server, or the name of a target
  AGENTA_AI_API_KEY       the API key; or one of these two:
  AGENTA_AI_API_KEY_FILE  a file with the API key
  AGENTA_AI_TOKEN         a bearer token
  AGENTA_AI_PROJECT       id of the project to act in
No option takes a secret, because other users can see command lines.

exit codes:
  0    success
  1    the tool failed, --check found a change, or nothing improved with --cases
  2    invalid usage, input or output
  3    not allowed
  4    rate limited
  5    no answer, or another failure
  130  interrupted
"""

EXAMPLES = """\
examples:
  agenta-ai status
  agenta-ai refine prompt.md -g "Be brief" -i
  agenta-ai refine 'prompts/**/*.md' --check
  agenta-ai call tools.agenta.api.refine_prompt --args @arguments.json --json
  agenta-ai target add staging ai.example.com:443

"""

OF_COMMAND = {
    "status": "examples:\n  agenta-ai status\n  agenta-ai status --json --target ai.example.com:443\n",
    "tools": "examples:\n  agenta-ai tools\n  agenta-ai tools --json\n",
    "whoami": "examples:\n  agenta-ai whoami\n  agenta-ai whoami --target staging\n",
    "call": (
        "examples:\n"
        "  agenta-ai call tools.agenta.api.refine_prompt --args @arguments.json\n"
        "  agenta-ai call tools.agenta.api.refine_prompt --args - --json < arguments.json\n"
    ),
    "refine": (
        "examples:\n"
        '  agenta-ai refine prompt.json -g "Be brief" -o refined.json\n'
        "  agenta-ai refine prompt.md --system -i            # as a system message\n"
        "  agenta-ai refine 'prompts/**/*.md' -i -j 8        # many files, 8 at a time\n"
        "  agenta-ai refine prompts/*.yaml --check --quiet   # in CI\n"
        "  agenta-ai refine prompt.md --interactive          # ask what to do with each\n"
        "  cat prompt.md | agenta-ai refine - -o - > new.md  # text in, text out\n"
        "  agenta-ai refine prompt.json --cases cases.jsonl  # against test cases\n"
    ),
    "target": (
        "examples:\n"
        "  agenta-ai target add staging ai.example.com:443   # asks for the key\n"
        "  agenta-ai target add staging ai.example.com:443 --api-key-file key.txt\n"
        "  agenta-ai target use staging\n"
        "  agenta-ai target list\n"
    ),
    "mcp": (
        "examples:\n"
        "  agenta-ai mcp config cursor         # what to paste into Cursor's settings\n"
        "  agenta-ai mcp --target staging      # over standard input and output\n"
        "  agenta-ai mcp --listen 127.0.0.1:8080\n"
    ),
    "completion": (
        "examples:\n"
        "  agenta-ai completion zsh > ~/.zfunc/_agenta-ai\n"
        "  agenta-ai completion fish > ~/.config/fish/completions/agenta-ai.fish\n"
        '  eval "$(agenta-ai completion bash)"  # in ~/.bashrc\n'
    ),
}
# These are shorter than argparse's own usage, which lists all options.
USAGE = {
    "call": "[OPTIONS] NAME",
    "refine": "[OPTIONS] FILE…",
    "mcp": "[OPTIONS] [config CLIENT]",
    "target": "ACTION …",
    "completion": "SHELL",
    "help": "[COMMAND]",
    "version": "",
}
SHELLS = ("bash", "zsh", "fish")
_NOTHING_CHOSEN = "the following arguments are required: "
_UNKNOWN_CHOICE = re.compile(r"argument (?:\S+/)?(\S+): invalid choice: '([^']*)'")
_UNKNOWN_WORDS = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser that suggests what the user may have meant."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Write the usage, the error and a suggestion. If no command is given, write the help."""
        if message in (_NOTHING_CHOSEN + "COMMAND", _NOTHING_CHOSEN + "ACTION"):
            text = self.format_help()
        else:
            text = f"{self.format_usage()}{self.prog}: {self._with_advice(message)}\n"
        if sys.stderr is not None:  # which is how Python says that it is closed
            sys.stderr.write(text)
        sys.exit(2)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # argparse ignores that it can't be written.
        (file or sys.stdout).write(message)

    def _with_advice(self, message: str) -> str:
        if wrong := _UNKNOWN_CHOICE.search(message):
            name, word = wrong.groups()
            choices = self._choices(name)
            one_of = f"Choose from {', '.join(choices)}."
            if name in self._option_string_actions:
                return f"{name}: can't be {word}. {one_of}"
            return f"There is no {name.lower()} {word}. {_meant(word, choices) or one_of}"
        if wrong := _UNKNOWN_WORDS.search(message):
            first = wrong[1].split()[0]
            help_ = f"Run {self.prog} --help."
            if first[:1] in "{[":
                return f"{wrong[1][:40]!r} is not an option. Pass the arguments of a tool with --args."
            return f"There is no option {first}. {_meant(first.partition('=')[0], self._options()) or help_}"
        return _sentence(message)

    def _choices(self, name: str) -> list[str]:
        """Return the values that an option or argument accepts."""
        return [
            word
            for action in self._actions
            if name in (*action.option_strings, action.metavar, action.dest)
            for word in action.choices or ()
        ]

    def _options(self) -> list[str]:
        """Return the options of the parser and of its commands."""
        options = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                options += [option for each in action.choices.values() for option in each._option_string_actions]
        return options


def _meant(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"Did you mean {close[0]}?" if close else ""


def build() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="agenta-ai",
        usage="%(prog)s [OPTIONS] COMMAND …",
        description="Small AI tools, called by name.",
        epilog=EXAMPLES + ENVIRONMENT,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _common(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser, prog="agenta-ai")

    def command(name: str, help_: str, *, common_too: bool = True) -> Parser:
        made: Parser = commands.add_parser(
            name,
            usage=f"agenta-ai {name} {USAGE.get(name, '[OPTIONS]')}",
            help=help_,
            description=_sentence(help_),
            epilog=OF_COMMAND.get(name),
        )
        if common_too:
            _common(made)
        made.set_defaults(command=name)
        return made

    for name, help_ in (
        ("status", "show the state of the service, and what you may use"),
        ("tools", "list the tools that you may call"),
        ("whoami", "show which server is used, and whether it accepts your credentials"),
    ):
        _json(command(name, help_))
    _call(command("call", "call a tool, and print its result"))
    _refine(command("refine", "refine prompts, and show what changed"))
    _mcp(command("mcp", "serve the tools to clients of the Model Context Protocol"))
    _target(command("target", "save servers and their credentials under names", common_too=False))
    completion = command("completion", "print a script that completes commands and options", common_too=False)
    completion.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    help_words = command("help", "show this help, or the help of a command", common_too=False)
    help_words.add_argument("topic", nargs="?", metavar="COMMAND", choices=[*commands.choices], help="the command")
    command("version", "show the version", common_too=False)
    return parser


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _common(parser: Parser) -> None:
    """Add the options that may be given before or after the command.

    They have no default here: the command's default would overwrite a value that was given before the command.
    """
    group = parser.add_argument_group("options of all commands")
    security = group.add_mutually_exclusive_group()
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    add("--target", metavar="HOST:PORT", help=f"the server, or the name of a target; {DEFAULT_TARGET} by default")
    add("--timeout", type=float, metavar="SECONDS", help="timeout; by default 90 for tools and 10 for the rest")
    for option, value, help_ in (
        ("--tls", True, "use TLS, even for this machine"),
        ("--plaintext", False, "use plaintext, even for other machines"),
    ):
        security.add_argument(
            option, action="store_const", const=value, dest="tls", default=argparse.SUPPRESS, help=help_
        )
    add("--ca", metavar="FILE", help="use TLS, and trust these authorities instead of the system's (PEM)")
    add("--cert", metavar="FILE", help="use TLS, and authenticate with this certificate (PEM)")
    add("--key", metavar="FILE", help="the key of --cert (PEM, unencrypted)")
    add("--color", choices=("auto", "always", "never"), metavar="WHEN", help="auto, always or never; auto by default")
    add("-q", "--quiet", action="store_true", help="print errors and warnings only")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, even for a failure")


def _paid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="wait for rate limits, as long as --timeout allows")
    parser.add_argument(
        "--retries", type=int, metavar="N", help="how often to retry after a broken connection; 4 by default"
    )
    parser.add_argument(
        "--request-id",
        metavar="UUID",
        help="id of an earlier call, to get its result; by default a new one",
    )
    parser.add_argument(
        "--rerun-if-outcome-unknown",
        action="store_true",
        help="with --request-id: if the result is lost, run the tool again; it may be billed twice",
    )


def _call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="for example tools.agenta.api.refine_prompt")
    parser.add_argument(
        "--args", metavar="JSON", default="{}", help="the arguments: a JSON object, @FILE, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON, even for a failure")
    _paid(parser)


def _refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="text, Markdown, YAML or JSON; a pattern; - for standard input"
    )
    parser.add_argument("-g", "--guidelines", default="", metavar="TEXT", help="instructions for the refinement")
    parser.add_argument("-c", "--context", default="", metavar="TEXT", help="what the prompt is for")
    parser.add_argument(
        "--system", action="store_true", help="treat a text as a system message instead of a user message"
    )
    parser.add_argument("--format", choices=("text", "json", "yaml"), metavar="FORMAT", help="text, json or yaml")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-i", "--in-place", action="store_true", help="write the refined prompts back to their files")
    where.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the refined prompt to this file, or several to this folder; - for standard output",
    )
    where.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a prompt would change")
    parser.add_argument(
        "--interactive", action="store_true", help="ask what to do with each prompt: accept, refine again, edit, skip"
    )
    cases = parser.add_argument_group("refining against test cases")
    cases.add_argument("--cases", metavar="FILE", help="test cases: JSON lines or CSV; - for standard input")
    cases.add_argument("--rounds", type=int, metavar="N", help="maximum number of refinements, 1 to 3; 2 by default")
    cases.add_argument("--repeat", type=int, metavar="N", help="runs of each case, 1 to 5; 1 by default")
    cases.add_argument(
        "--pass-at-least", type=int, metavar="K", help="how many runs of a case must pass; all by default"
    )
    cases.add_argument("--max-calls", type=int, metavar="N", help="maximum number of model calls; 40 by default")
    cases.add_argument("--report", metavar="FILE", help="write a report as Markdown; - for standard output")
    parser.add_argument("--diff", choices=("line", "word"), default="line", metavar="KIND", help="line or word")
    parser.add_argument(
        "-j", "--jobs", type=int, default=4, metavar="N", help="number of prompts to refine at once; 4 by default"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, even for a failure; a list for several files")
    _paid(parser)


def _mcp(parser: Parser) -> None:
    _names(parser)
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", help="serve streamable HTTP at this address; by default standard I/O")
    add("--listen-cert", metavar="FILE", help="with --listen: use TLS with this certificate (PEM)")
    add("--listen-key", metavar="FILE", help="the key of --listen-cert (PEM, unencrypted)")
    add("--behind-tls-proxy", action="store_true", help="with --listen: a proxy in front terminates TLS")
    add(
        "--host", action="append", default=[], metavar="NAME[:PORT]",
        help="with --listen: also accept this Host; NAME:* for any port; repeatable",
    )  # fmt: skip
    add(
        "--origin", action="append", default=[], metavar="URL",
        help="with --listen: allow calls from web pages of this origin; repeatable",
    )  # fmt: skip
    add(
        "--resource",
        default="",
        metavar="URL",
        help="with --issuer: the audience of tokens, the same as the service's",
    )
    add("--issuer", default="", metavar="URL", help="with --resource: the server that issues tokens to callers")
    actions = parser.add_subparsers(metavar="ACTION", parser_class=Parser, prog="agenta-ai mcp")
    config = actions.add_parser(
        "config", help="print the settings for a client", description="Print the settings for a client to paste."
    )
    config.add_argument("client", choices=("claude", "cursor", "vscode"), help="claude, cursor or vscode")
    config.add_argument(
        "--target", default=argparse.SUPPRESS, metavar="NAME", help="the target to use; the current one by default"
    )
    _names(config)
    config.set_defaults(command="mcp config")


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--names", choices=("dots", "underscore"), default="dots", metavar="STYLE",
        help="dots, or underscore for model APIs that reject dots in names of tools",
    )  # fmt: skip


def _target(parser: Parser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=Parser, prog="agenta-ai target")
    add = actions.add_parser("add", help="add a target, or replace it", description="Add a target, or replace it.")
    add.add_argument("name", metavar="NAME", help="letters, digits, '-', '_' and '.'")
    add.add_argument("address", metavar="HOST:PORT", help="the server")
    secrets = add.add_mutually_exclusive_group()
    secrets.add_argument("--api-key-file", metavar="FILE", help="a file that holds the key; - for standard input")
    secrets.add_argument("--token-file", metavar="FILE", help="a file that holds a token; - for standard input")
    secrets.add_argument(
        "--no-credentials", action="store_true", help="don't ask for a key, because the server needs none"
    )
    add.add_argument("--project", default="", metavar="ID", help="id of the project to act in")
    security = add.add_mutually_exclusive_group()
    security.add_argument("--tls", action="store_true", dest="tls", help="use TLS, even for this machine")
    security.add_argument(
        "--plaintext", action="store_false", dest="tls", help="use plaintext, even for other machines"
    )
    add.add_argument("--ca", default="", metavar="FILE", help="trust these authorities instead of the system's (PEM)")
    use = actions.add_parser("use", help="use a target by default", description="Use a target by default.")
    remove = actions.add_parser("remove", help="remove a target", description="Remove a target.")
    for each in (use, remove):
        each.add_argument("name", metavar="NAME", help="name of the target")
    listing = actions.add_parser("list", help="list the targets", description="List the targets.")
    _json(listing)
    for name, each in actions.choices.items():
        each.set_defaults(action=name, tls=None)
