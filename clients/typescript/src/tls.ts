import { isIPv4, isIPv6 } from "node:net";
import { checkServerIdentity } from "node:tls";
import { type ChannelCredentials, credentials } from "@grpc/grpc-js";
import type { TlsOptions } from "./options.js";

/**
 * @param ip - The address to check the server's certificate for, if the target has one instead of a name.
 * @throws TypeError if only one of key and certificate is given, or one can't be used.
 */
export function tlsCredentials({ ca, key, certificate }: TlsOptions, ip: string | undefined): ChannelCredentials {
  for (const [name, pem] of Object.entries({ ca, key, certificate })) {
    if (pem?.length === 0) {
      throw new TypeError(`tls: ${name} is empty: give a PEM text, or leave it out`);
    }
  }
  if (!key !== !certificate) {
    throw new TypeError("tls: give both key and certificate, or none of them");
  }
  if (ca && !/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/.test(Buffer.from(ca).toString("latin1"))) {
    throw new TypeError("tls: ca has no certificate: give a PEM text, not the name of a file");
  }
  // Instead of what serverNameOf returns.
  const verify = ip ? { checkServerIdentity: (_: string, peer: PeerCertificate) => checkServerIdentity(ip, peer) } : {};
  try {
    return credentials.createSsl(buffer(ca), buffer(key), buffer(certificate), verify);
  } catch (error) {
    const why = error instanceof Error ? error.message : "unknown";
    throw new TypeError(`tls: key and certificate can't be used (${why}): give PEM texts that belong together`);
  }
}

type PeerCertificate = Parameters<typeof checkServerIdentity>[1];

function buffer(pem: string | Uint8Array | undefined): Buffer | null {
  return pem === undefined ? null : Buffer.from(pem);
}

/** The IP address that a target has instead of a name. */
export function ipOf(target: string): string | undefined {
  const host = /^(?:dns:(?:\/\/\/)?|ipv[46]:)?(?:\[([^\]]+)\]|([^:,[\]]+)):\d+$/.exec(target);
  const name = host?.[1] ?? host?.[2] ?? "";
  return isIPv4(name) || isIPv6(name) ? name : undefined;
}

/**
 * The name to send in the TLS handshake in the place of an IP address, which is not allowed there (RFC 6066): Node warns
 * of it, and Bun and Deno fail. It is the address's name in the DNS, as RFC 8738 has it.
 */
export function serverNameOf(ip: string): string {
  if (isIPv4(ip)) {
    return `${ip.split(".").reverse().join(".")}.in-addr.arpa`;
  }
  // The URL parser writes all that are in one form: with hexadecimal groups, the longest run of zeros as "::".
  const [head = "", tail = ""] = new URL(`http://[${ip}]`).hostname.slice(1, -1).split("::");
  const groups = (text: string) => (text ? text.split(":").map((group) => group.padStart(4, "0")) : []);
  const [left, right] = [groups(head), groups(tail)];
  const zeros = Array<string>(8 - left.length - right.length).fill("0000");
  const digits = [...left, ...zeros, ...right].join("");
  return `${[...digits].reverse().join(".")}.ip6.arpa`;
}
