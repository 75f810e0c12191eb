"""The bridge: a server of the Model Context Protocol (MCP) that is a client of the service.

``agenta-ai mcp`` runs it. Built on the official SDK, which only this package imports; the extra ``mcp`` installs it.
"""
