import { Metadata as GrpcMetadata } from "@grpc/grpc-js";

/** A text, or the bytes of a name that ends in "-bin". */
export type MetadataValue = string | Uint8Array;

/** Metadata to send. Names are lower case. */
export type MetadataInit = Readonly<Record<string, MetadataValue | readonly MetadataValue[]>>;

/** Metadata that came: all values of each name. */
export type Metadata = Readonly<Record<string, readonly MetadataValue[]>>;

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
