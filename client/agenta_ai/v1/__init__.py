"""Generated from ``protos/agenta/ai/v1``: messages and stubs. Never edited by hand."""
