"""Typed methods: derives protobuf messages from a tool's JSON Schemas, and converts them to and from JSON."""
