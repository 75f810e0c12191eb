const SCHEME = /^(?:dns|unix|unix-abstract|ipv4|ipv6|vsock|xds):|:\/\//;
const HOST_AND_PORT = /^(?:\[[^\]]+\]|[^:/[\]]+):[0-9]+$/;

const OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const ENDPOINT = String.raw`(?:[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]\.?|127(?:\.${OCTET}){3}|\[::1\]):[0-9]+`;
const LOCAL = new RegExp(
  `^(?:(?:dns:(?:///)?)?${ENDPOINT}|ipv[46]:${ENDPOINT}(?:,${ENDPOINT})*|unix(?:-abstract)?:[^\\n]+)$`,
);

/**
 * Checks that a target is an address of a gRPC server.
 *
 * @throws TypeError if it isn't.
 */
export function checkTarget(target: string): void {
  const shown = JSON.stringify(target);
  if (target === "") {
    throw new TypeError("The target is empty: give host:port");
  }
  if (/^https?:/i.test(target)) {
    // It isn't shown: web addresses may hold passwords.
    throw new TypeError("The target is a web address: give host:port, without http");
  }
  if (!/^[!-~]+$/.test(target)) {
    throw new TypeError(`The target ${shown} has characters that are not part of an address: give host:port`);
  }
  if (target.startsWith("unix-abstract:")) {
    // It would look for a machine of the name "unix-abstract", and trust it as this one.
    throw new TypeError(
      `The target ${shown} is an abstract Unix socket, which grpc-js can't reach: give host:port or unix:path`,
    );
  }
  if (!SCHEME.test(target) && !HOST_AND_PORT.test(target)) {
    throw new TypeError(`The target ${shown} has no port: give host:port, or [host]:port for IPv6`);
  }
}

/**
 * Whether a target is on this machine by its name alone. tests/conformance/targets.json is the table that the clients of
 * all languages follow.
 */
export function isLocal(target: string): boolean {
  return LOCAL.test(target);
}
