"""Generated from ``protos/agenta/ai/v1``: the messages and stubs of the contract. Never edited by hand."""
