"""The parser of ``agenta-ai-server tools``. Imports nothing slow, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.commands.tools.proto_parser import add_proto

if TYPE_CHECKING:
    from collections.abc import Coroutine

LIST_EXAMPLES = """\
examples:
  agenta-ai-server tools list
  agenta-ai-server tools list --file tools.toml --json
"""
DIFF_EXAMPLES = """\
examples:
  agenta-ai-server tools diff
  agenta-ai-server tools diff tools.acme.support.classify_ticket --environment staging
  agenta-ai-server tools diff --json || echo "the file and what is deployed differ"

exit codes: 0 no differences, 1 differences, 2 invalid arguments, settings or file, or Agenta can't be read
"""
PULL_EXAMPLES = """\
examples:
  agenta-ai-server tools pull                           update the tools in the file
  agenta-ai-server tools pull classify-ticket           also add the application classify-ticket
  agenta-ai-server tools pull --all --dry-run           show what adding everything would write
  agenta-ai-server tools pull summarize --provider acme --group support
                                                        name it tools.acme.support.summarize

exit codes: 0 the file matches what is deployed, 1 some differences are left for you to resolve, 2 invalid arguments,
settings or file, or Agenta can't be read
"""
TEST_EXAMPLES = """\
examples:
  agenta-ai-server tools test                                    use the stand-in: free, and without an account
  agenta-ai-server tools test tools.acme.support.summarize --json
  agenta-ai-server tools test --live                             run the deployed prompts, which is billed

exit codes: 0 all examples pass, 1 at least one fails, 2 invalid arguments, settings or file
"""


def add_tools(parser: argparse.ArgumentParser) -> None:
    """Add the commands, each with ``command``: from the arguments to an exit code, or to a coroutine for one."""
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--file", metavar="FILE", type=Path, help="tools file; overrides AGENTA_AI_GRPC_TOOLS_FILE")
    agenta = argparse.ArgumentParser(add_help=False)
    agenta.add_argument(
        "--environment",
        dest="environment_slug",
        metavar="SLUG",
        default="",
        help="environment of tools that don't name one; overrides AGENTA_AI_SERVICES_ENVIRONMENT_SLUG",
    )
    agenta.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        help="file with an API key of Agenta; by default AGENTA_API_KEY is used, or else AGENTA_AI_SERVICES_API_KEY",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = _command(commands, "list", "list the tools of the file", LIST_EXAMPLES, file)
    show.add_argument("--json", action="store_true", help="print JSON, with schemas and examples")
    show.set_defaults(command=_list)
    diff = _command(commands, "diff", "compare the file with what is deployed in Agenta", DIFF_EXAMPLES, file, agenta)
    diff.add_argument("names", nargs="*", metavar="TOOL", help="name of a tool; all if none is given")
    diff.add_argument("--json", action="store_true", help="print JSON")
    diff.set_defaults(command=_diff)
    _add_pull(
        _command(
            commands, "pull", "write or update the file from what is deployed in Agenta", PULL_EXAMPLES, file, agenta
        )
    )
    _add_test(_command(commands, "test", "run the examples of the file", TEST_EXAMPLES, file))
    add_proto(commands)


def _add_test(test: argparse.ArgumentParser) -> None:
    test.add_argument("names", nargs="*", metavar="TOOL", help="name of a tool; all if none is given")
    test.add_argument(
        "--live",
        action="store_true",
        help="run the prompts that are deployed in Agenta, with the server's settings; each example is billed",
    )
    test.add_argument(
        "--exact", action="store_true", help="with --live: results must equal those of the examples, not only be valid"
    )
    test.add_argument("--json", action="store_true", help="print JSON")
    test.set_defaults(command=_test)


def _add_pull(pull: argparse.ArgumentParser) -> None:
    pull.add_argument("applications", nargs="*", metavar="APPLICATION", help="slug of an application to add")
    pull.add_argument("--all", action="store_true", help="add every application that is deployed to the environment")
    pull.add_argument(
        "--provider",
        default="",
        metavar="NAME",
        help="second part of new names; by default that of the file's last tool, or agenta",
    )
    pull.add_argument(
        "--group",
        default="",
        metavar="NAME",
        help="third part of new names; by default that of the file's last tool, or prompts",
    )
    pull.add_argument(
        "--widen", action="store_true", help="also change results to allow more, which callers may not expect"
    )
    pull.add_argument("--dry-run", action="store_true", help="print the change as a diff, and change nothing")
    pull.set_defaults(command=_pull)


def _command(
    commands: Any, name: str, text: str, examples: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    description = f"{text[0].upper()}{text[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        parents=parents,
        help=text,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.commands.tools import list as command

    return command.run(arguments.environment, arguments.file, as_json=arguments.json)


def _diff(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from agenta_ai_server.commands.tools import diff

    options = diff.Options(
        names=tuple(arguments.names),
        file=arguments.file,
        environment=arguments.environment_slug,
        api_key_file=arguments.api_key_file,
        as_json=arguments.json,
    )
    return diff.run(arguments.environment, options)


def _pull(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from agenta_ai_server.commands.tools import pull

    options = pull.Options(
        applications=tuple(arguments.applications),
        add_all=arguments.all,
        file=arguments.file,
        environment=arguments.environment_slug,
        provider=arguments.provider,
        group=arguments.group,
        api_key_file=arguments.api_key_file,
        widen=arguments.widen,
        dry_run=arguments.dry_run,
    )
    return pull.run(arguments.environment, options)


def _test(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from agenta_ai_server.commands.tools import test

    options = test.Options(
        names=tuple(arguments.names),
        file=arguments.file,
        live=arguments.live,
        exact=arguments.exact,
        as_json=arguments.json,
    )
    return test.run(arguments.environment, options)
