"""The pipeline that a tool call passes on its way to the tool, without grpc and without protobuf."""
