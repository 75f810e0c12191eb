import { Metadata as GrpcMetadata } from "@grpc/grpc-js";
import type { Metadata, MetadataInit } from "./options.js";

/** @throws TypeError if a name or a value can't be sent. It doesn't show the value, which may be a secret. */
export function toGrpc(init: MetadataInit): GrpcMetadata {
  const metadata = new GrpcMetadata();
  for (const [name, values] of Object.entries(init)) {
    for (const value of Array.isArray(values) ? values : [values]) {
      try {
        metadata.add(name, typeof value === "string" ? value : Buffer.from(value));
      } catch {
        throw new TypeError(
          `metadata: ${JSON.stringify(name)} can't be sent: a name has letters, digits and "-_.", a value is printable ` +
            'ASCII, or bytes if the name ends in "-bin"',
        );
      }
    }
  }
  return metadata;
}

/** Whether the metadata says who calls. */
export function hasAuthorization(init: MetadataInit): boolean {
  return Object.keys(init).some((name) => name.toLowerCase() === "authorization");
}

export function fromGrpc(metadata: GrpcMetadata): Metadata {
  return Object.fromEntries(Object.keys(metadata.getMap()).map((name) => [name, metadata.get(name)]));
}
