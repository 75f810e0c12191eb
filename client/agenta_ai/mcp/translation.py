"""Convert the service's responses to MCP messages. Pure functions, no I/O."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

if TYPE_CHECKING:
    from agenta_ai import results
    from agenta_ai.mcp.names import Names

# Key of what a result tells besides MCP's own fields; its prefix is ours, as MCP wants it.
CALL_META = "ai.agenta/call"


def tool_page(page: results.ToolPage, names: Names, version: str) -> types.ListToolsResult:
    """Return a page of tools.

    Args:
        page: The page.
        names: How tools are named.
        version: The revision of MCP that the client speaks.
    """
    return types.ListToolsResult(
        tools=[tool(each, names, version) for each in page.tools],
        next_cursor=page.next_page_token or None,
        ttl_ms=math.floor(page.ttl * 1000),
        cache_scope="public" if page.is_public else "private",
    )


def tool(tool: results.Tool, names: Names, version: str) -> types.Tool:
    """Return the definition of a tool."""
    hints = tool.annotations
    return types.Tool(
        name=names.shown(tool.name),
        title=tool.title or None,
        description=tool.description or None,
        input_schema={"type": "object", **_in_order(tool.input_schema)},
        output_schema=_in_order(tool.output_schema) if _may_have(tool.output_schema, version) else None,
        annotations=types.ToolAnnotations(
            title=tool.title or None,
            read_only_hint=hints.read_only,
            destructive_hint=hints.destructive,
            idempotent_hint=hints.idempotent,
            open_world_hint=hints.open_world,
        ),
        icons=[
            types.Icon(src=icon.src, mime_type=icon.mime_type or None, sizes=list(icon.sizes) or None)
            for icon in tool.icons
        ]
        or None,
    )


def _may_have(output_schema: dict[str, Any], version: str) -> bool:
    """Say whether a client may see this schema: until 2025-11-25, structured results are objects."""
    return bool(output_schema) and (version in MODERN_PROTOCOL_VERSIONS or output_schema.get("type") == "object")


def _in_order(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with sorted keys: a Struct doesn't keep their order, but hosts cache prompts by their text.

    It requests no argument in a header, because a server would have to compare both for each call.
    """
    ordered: dict[str, Any] = json.loads(json.dumps(schema, sort_keys=True), object_hook=_without_headers)
    return ordered


def _without_headers(schema: dict[str, Any]) -> dict[str, Any]:
    schema.pop("x-mcp-header", None)
    return schema


def call_result(result: results.ToolResult, version: str) -> types.CallToolResult:
    """Return the result of a tool that succeeded.

    The content also includes the structured content as JSON, because many clients pass only the content to a model.
    """
    content = [block for block in map(_block, result.content) if block is not None]
    structured = result.structured_content
    if structured is not None:
        as_json = json.dumps(structured, ensure_ascii=False, sort_keys=True)
        if not any(isinstance(block, types.TextContent) and block.text == as_json for block in content):
            content.append(types.TextContent(text=as_json))
    may_be_structured = version in MODERN_PROTOCOL_VERSIONS or isinstance(structured, dict)
    return types.CallToolResult(
        content=content,
        structured_content=structured if may_be_structured else None,
        _meta={CALL_META: call_meta(result)},
    )


def call_meta(result: results.ToolResult) -> dict[str, Any]:
    """Return how a result was produced, for programs."""
    facts = {
        "requestId": result.request_id,
        "callId": result.call_id,
        "traceId": result.meta.trace_id,
        "repaired": result.meta.repaired,
        "replayed": result.meta.replayed,
        "warnings": list(result.meta.warnings),
    }
    return {name: value for name, value in facts.items() if value}


def _block(block: results.Content) -> types.ContentBlock:
    match block.kind:
        case "text":
            return types.TextContent(text=block.text)
        case "image":
            return types.ImageContent(data=base64.b64encode(block.data).decode(), mime_type=block.mime_type)
        case "audio":
            return types.AudioContent(data=base64.b64encode(block.data).decode(), mime_type=block.mime_type)
        case "resource_link":
            return types.ResourceLink(
                uri=block.uri,
                name=block.name,
                title=block.title or None,
                description=block.description or None,
                mime_type=block.mime_type or None,
                size=block.size,
            )
