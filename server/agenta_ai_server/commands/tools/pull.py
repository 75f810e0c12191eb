"""The command ``agenta-ai-server tools pull``: writes or updates the tools file from what is deployed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.deployments import read_states
from agenta_ai_server.agenta.management import ManagementError
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.management import open_management
from agenta_ai_server.commands.tools.source import check_environment, environment_of, file_of, read_tools
from agenta_ai_server.files.contents import read_file, replace_file
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.tools.drift.comparison import state_differences
from agenta_ai_server.tools.drift.deployed import read_deployed
from agenta_ai_server.tools.drift.document import NewTool, ToolsDocument, free_name
from agenta_ai_server.tools.tools_file.read import ToolsFileError, parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agenta_ai_server.agenta.deployments import ApplicationState, Place
    from agenta_ai_server.agenta.management import ManagementClient
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

REFINE_APPLICATION = "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY"
HEADER = "# Prompts in Agenta that this service offers as tools. docs/tools.md explains each key.\n"
EXIT_LEFT, EXIT_TROUBLE = 1, 2
NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options.

    Attributes:
        applications: Slugs of the applications to add, if they aren't in the file yet.
        add_all: Whether to add everything that the environment holds.
        file: The tools file, in place of the server's.
        environment: Slug of the environment, in place of the server's.
        provider: Second part of the names of new tools; empty for that of the file's last tool, or else ``"agenta"``.
        group: Third part; empty for that of the file's last tool, or else ``"prompts"``.
        api_key_file: File with the key, in place of the variables.
        widen: Whether results may allow more than they do.
        dry_run: Whether to print the change and make none.
    """

    applications: tuple[str, ...] = ()
    add_all: bool = False
    file: Path | None = None
    environment: str = ""
    provider: str = ""
    group: str = ""
    api_key_file: Path | None = None
    widen: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class Report:
    """The changes that were made, and those that are left to people."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


async def run(environment: Mapping[str, str], options: Options) -> int:
    """Update the file.

    Args:
        environment: Holds the address of Agenta and a key, and may name the file and the environment.
        options: What to do.

    Returns:
        0 if the file fits what is deployed now, 1 if something is left to people, 2 if Agenta can't be read or the file
        can't be written.

    Raises:
        SettingsError: A setting or the file is missing or has faults.
    """
    file = _opened(file_of(environment, options.file))
    if not file.tools and not options.applications and not options.add_all:
        raise SettingsError([f"{file.path} has no tools yet. Name the applications to add, or add all with --all."])
    slug = environment_of(environment, options.environment)
    check_environment(slug)
    try:
        pull = _Pull(file, slug, environment, options)
        async with open_management(environment, options.api_key_file) as management:
            await pull.read(management)
        pull.update()
        pull.add()
        pull.write()
    except SettingsError:
        raise
    except ManagementError as error:
        return _trouble(f"{error} {error.remedy}")
    except OSError as error:
        return _trouble(f"can't write {error.filename or file.path}: {error.strerror}.")
    except ValueError as error:
        return _trouble(f"{file.path} {str(error).rstrip('.')}.")
    return EXIT_LEFT if pull.report.left else 0


@dataclass(frozen=True, slots=True)
class _File:
    """The file as it was found.

    Attributes:
        path: Where it is. What a symbolic link leads to, because the link itself would be replaced.
        text: What it says; ``None`` if there is none.
        tools: The tools that it has.
    """

    path: Path
    text: str | None
    tools: tuple[ToolDefinition, ...]


def _opened(given: Path) -> _File:
    path = given.resolve()
    if not path.exists():
        return _File(path, None, ())
    tools = read_tools(path)
    return _File(path, read_file(path).decode(), tools)


def _trouble(text: str) -> int:
    stdout.report(f"agenta-ai-server tools pull: {text}")
    return EXIT_TROUBLE


class _Pull:
    """One update of a file.

    Attributes:
        report: What it did.
    """

    def __init__(self, file: _File, slug: str, environment: Mapping[str, str], options: Options) -> None:
        self.report = Report()
        self._file = file
        self._slug = slug
        self._own_slug = environment_of(environment, "")
        self._refine_application = environment.get(REFINE_APPLICATION, "").strip()
        self._options = options
        text = file.text if file.text and file.text.strip() else HEADER
        self._document = ToolsDocument(text, lambda name: read_file(file.path.parent / name))
        self._states: Mapping[Place, ApplicationState] = {}
        self._new: list[str] = []

    async def read(self, management: ManagementClient) -> None:
        """Read what is deployed for the tools of the file and for new ones."""
        known = {self._place(tool) for tool in self._file.tools}
        slugs = list(dict.fromkeys(self._options.applications))
        if self._options.add_all:
            deployed = await management.deployed_applications(self._slug)
            slugs += [each for each in deployed if each not in slugs and each != self._refine_application]
        self._new = [each for each in slugs if (each, self._slug) not in known]
        self._states = await read_states(management, {*known, *((each, self._slug) for each in self._new)})

    def update(self) -> None:
        """Update the tools of the file to what is deployed for them."""
        for tool in self._file.tools:
            place = self._place(tool)
            state = self._states[place]
            for difference in state_differences(tool, state, place[1]):
                done = ""
                if state.deployed:
                    deployed = read_deployed(state.deployed)
                    done = self._document.follow(tool.name, deployed, difference, widen=self._options.widen)
                if done:
                    self.report.done.append(f"{tool.name}: {done}")
                    continue
                is_wider = difference.change and difference.change.widens and not self._options.widen
                remedy = "The result would allow more. --widen writes it." if is_wider else difference.remedy
                self.report.left.append(f"{tool.name}: {difference.text} {remedy}")

    def add(self) -> None:
        """Add tools for the applications that are new."""
        names = [tool.name for tool in self._file.tools]
        last = names[-1].split(".") if names else ["tools", "agenta", "prompts", ""]
        provider, group = self._options.provider or last[1], self._options.group or last[2]
        for slug in self._new:
            name = free_name(provider, group, slug, names)
            if self._added(name, slug, self._states[slug, self._slug]):
                names.append(name)

    def _added(self, name: str, slug: str, state: ApplicationState) -> bool:
        if state.application is None or state.deployed is None:
            self.report.left.append(f"{slug} isn't deployed to {self._slug}. Correct the slug, or deploy it in Agenta.")
            return False
        deployed = read_deployed(state.deployed)
        if deployed.kind == "other":
            reason = f"{slug} holds no prompt ({deployed.uri or 'no type'}), so it can't be a tool."
            if slug in self._options.applications:
                self.report.left.append(reason)
            else:
                self.report.done.append(f"Skipped: {reason}")
            return False
        if deployed.fault:
            self.report.left.append(f"{slug}: {deployed.fault} Correct the prompt in Agenta.")
            return False
        application = state.application
        new = NewTool(
            name=name,
            application=slug,
            environment="" if self._slug == self._own_slug else self._slug,
            title=application.name if application.name != slug else "",
            description=application.description or f"Runs the prompt {slug} in Agenta.",
            deployed=deployed,
        )
        try:
            self._document.add(new)
        except ValueError as error:
            self.report.left.append(f"{slug}: {error}")
            return False
        self.report.done.append(f"Added {name} for {slug}.")
        if not application.description:
            self.report.done.append(f"{name}: Agenta has no description of it. Write one: callers choose tools by it.")
        if untyped := sorted(deployed.structured.intersection(deployed.inputs) - deployed.input_schemas.keys()):
            self.report.done.append(f"{name}: add the type of {', '.join(untyped)}: it is an object or a list.")
        return True

    def write(self) -> None:
        """Write the file and those that it names, or print the change.

        Raises:
            ValueError: The new text has faults.
            OSError: It can't be written.
        """
        contents = {**self._document.beside, self._file.path.name: self._document.text()}
        self._check(contents[self._file.path.name])
        changed = {name: content for name, content in contents.items() if content != self._old(name)}
        if self._options.dry_run:
            for name, content in changed.items():
                stdout.say(_diff(self._old(name) or "", content, name))
        else:
            # The file itself comes last, so that what it names is there.
            for name, content in changed.items():
                replace_file(self._file.path.parent / name, content.encode(), mode=NEW_FILE_MODE)
        for line in self.report.done:
            stdout.report(line)
        for line in self.report.left:
            stdout.report(f"Not done: {line}")
        if not changed and not self.report.left:
            stdout.report(f"No change: {self._file.path} matches what is deployed.")
        if changed and self._options.dry_run:
            stdout.report("This was a dry run: nothing was written.")

    def _check(self, text: str) -> None:
        def read_beside(path: Path) -> bytes:
            content = self._document.beside.get(str(path.relative_to(self._file.path.parent)))
            return read_file(path) if content is None else content.encode()

        try:
            parse(text.encode(), self._file.path.parent, read_beside=read_beside)
        except ToolsFileError as error:
            raise ValueError(f"wasn't changed, because it would have errors: {'; '.join(error.faults)}") from None

    def _old(self, name: str) -> str | None:
        """Return what a file says now; ``None`` if there is none."""
        path = self._file.path.parent / name
        return read_file(path).decode() if path.exists() else None

    def _place(self, tool: ToolDefinition) -> Place:
        return tool.application, tool.environment or self._slug


def _diff(old: str, new: str, name: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    return "\n".join(lines)
