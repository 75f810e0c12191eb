"""Generated from ``protos/agenta/ai/tools/agenta/api/v1``: messages and stubs. Never edited by hand."""
