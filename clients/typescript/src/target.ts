const PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const IPV4 = String.raw`${OCTET}(?:\.${OCTET}){3}:${PORT}`;
const IPV6 = String.raw`\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z_.~-]+)?\]:${PORT}`;
const HOST_AND_PORT = `(?:[0-9A-Za-z_.-]+:${PORT}|${IPV6})`;
const BARE = new RegExp(`^${HOST_AND_PORT}$`);

// The kinds that grpc-js can connect to. It takes others, such as abstract Unix sockets, for names of machines.
const SCHEME = /^(?:dns|unix|unix-abstract|ipv4|ipv6|xds):/;
const WITH_SCHEME = new RegExp(
  String.raw`^(?:dns:(?://[0-9A-Za-z_.:\[\]-]*/)?${HOST_AND_PORT}` +
    `|ipv4:${IPV4}(?:,${IPV4})*|ipv6:${IPV6}(?:,${IPV6})*|unix:(?:///.|/?[^/]).*)$`,
);

const ENDPOINT = String.raw`(?:[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]\.?|127(?:\.${OCTET}){3}|\[::1\]):${PORT}`;
const LOCAL = new RegExp(
  `^(?:(?:dns:(?:///)?)?${ENDPOINT}|ipv[46]:${ENDPOINT}(?:,${ENDPOINT})*|unix(?:-abstract)?:[^\\n]+)$`,
);

/**
 * Checks that a target is an address of a gRPC server.
 *
 * @throws TypeError if it isn't.
 */
export function checkTarget(target: string): void {
  if (target === "") {
    throw new TypeError("The target is empty: give host:port");
  }
  if (/^https?:/i.test(target)) {
    // It isn't shown: web addresses may hold passwords.
    throw new TypeError("The target is a web address: give host:port, without http");
  }
  // What holds an @ may hold a password.
  const shown = target.includes("@") ? "The target" : `The target ${JSON.stringify(target)}`;
  if (!/^[!-~]+$/.test(target)) {
    throw new TypeError(`${shown} has characters that are not part of an address: give host:port`);
  }
  if (!(SCHEME.test(target) ? WITH_SCHEME : BARE).test(target)) {
    throw new TypeError(
      `${shown} is not an address that this client can connect to: ` +
        "give host:port with a port from 1 to 65535, [address]:port for IPv6, or unix:path",
    );
  }
}

/**
 * Whether a target is on this machine by its name alone. tests/conformance/targets.json is the table that the clients of
 * all languages follow.
 */
export function isLocal(target: string): boolean {
  return LOCAL.test(target);
}
