import { Metadata as GrpcMetadata } from "@grpc/grpc-js";
import type { Metadata, MetadataInit } from "./options.js";

/** @throws if a name or a value can't be sent. */
export function toGrpc(init: MetadataInit): GrpcMetadata {
  const metadata = new GrpcMetadata();
  for (const [name, values] of Object.entries(init)) {
    for (const value of Array.isArray(values) ? values : [values]) {
      metadata.add(name, typeof value === "string" ? value : Buffer.from(value));
    }
  }
  return metadata;
}

export function fromGrpc(metadata: GrpcMetadata): Metadata {
  return Object.fromEntries(Object.keys(metadata.getMap()).map((name) => [name, metadata.get(name)]));
}
