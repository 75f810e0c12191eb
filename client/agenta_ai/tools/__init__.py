"""Generated from ``protos/agenta/ai/tools``: messages and stubs. Never edited by hand."""
