"""Typed methods: from a tool's JSON Schemas to protobuf messages, and between those and JSON."""
