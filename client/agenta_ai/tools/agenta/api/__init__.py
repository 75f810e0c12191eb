"""Generated from ``protos/agenta/ai/tools/agenta/api``: messages and stubs. Never edited by hand."""
