"""What a tool call passes on its way to the tool: decided here, without grpc and without protobuf."""
