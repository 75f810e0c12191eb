"""``agenta-ai-server dev`` as a place to try ``provision`` and ``tools pull``, without an account."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ops.test_process import environment, output, process

from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import Caller
from agenta_ai_server.tools.tools_file.read import read

PROGRAMS = Path(sys.executable).parent
SERVER, CLIENT = PROGRAMS / "agenta-ai-server", PROGRAMS / "agenta-ai"
EXAMPLES = Path("examples/tools.toml")


async def scripted(script: str, *options: str) -> tuple[int | None, str, str]:
    """What a script prints that ``dev`` runs, and how it ends."""
    arguments = ("dev", "--listen", "127.0.0.1:0", *options, "--", "sh", "-ec", script)
    async with process(*arguments, **environment()) as started:
        return await output(started)


async def test_an_empty_stand_in_can_be_provisioned() -> None:
    code, out, err = await scripted(
        f"{CLIENT} refine examples/support_agent.json >/dev/null 2>&1 && exit 9\n"
        f"{SERVER} provision --environment production --model gpt-4o-mini\n"
        f"{CLIENT} refine examples/support_agent.json >/dev/null\n"
        f"{SERVER} tools pull --all --file /dev/stdout --dry-run || exit 8\n",
        "--empty",
    )
    assert (code, out.count("export AGENTA_AI_SERVICES_")) == (0, 3), err
    assert "Created the application ai-refine." in err


async def test_a_deployed_prompt_becomes_a_tool(tmp_path: Path) -> None:
    file = tmp_path / "tools.toml"
    file.write_text("")
    call = json.dumps({"feedback": "Too dear!", "language": "en"})
    code, out, err = await scripted(
        f"export AGENTA_AI_GRPC_TOOLS_FILE={file}\n"
        f"{SERVER} tools pull classify-feedback --provider acme --group shop\n"
        f"{SERVER} tools diff\n"
        # The service looks at the file once a second.
        f"for _ in $(seq 100); do {CLIENT} tools | grep -q classify && break; sleep 0.1; done\n"
        f"{CLIENT} call tools.acme.shop.classify_feedback --args '{call}'\n",
        "--tools",
        str(file),
    )
    assert code == 0, err
    assert "No differences: 1 tool compared." in out
    assert '"topic"' in out


@pytest.mark.parametrize("deploy", [True, False])
def test_what_is_offered_is_deployed_unless_somebody_else_did(deploy: bool) -> None:
    standin = StandIn(app="")
    project = standin.management.projects[Caller().project_id]
    tool = next(tool for tool in read(EXAMPLES) if tool.application == "extract-order")
    offered = canned_prompt(tool, "production")
    standin.offer([offered], deploy=deploy)
    found = project.deployed("extract-order", "production")
    if not deploy:
        assert found is None
        return
    assert found is not None
    assert found["data"] == offered.data
    standin.offer([offered])
    assert len(project.applications["extract-order"].revisions) == 2
    changed = replace(offered, inputs=("text", "tone"))
    standin.offer([changed])
    assert project.deployed("extract-order", "production")["data"] == changed.data  # type: ignore[index]
    application = project.applications["extract-order"]
    theirs = application.commit({"uri": "", "parameters": {}}, "them")
    project.deploy(application, theirs, project.environments["production"], "them")
    standin.offer([offered])
    assert project.deployed("extract-order", "production") == theirs
