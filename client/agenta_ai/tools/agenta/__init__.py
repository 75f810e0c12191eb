"""Generated from ``protos/agenta/ai/tools/agenta``: messages and stubs. Never edited by hand."""
