package ai.agenta.ai;

import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;

/**
 * Where a server is: the same table for the clients of all languages, tests/conformance/targets.json.
 *
 * @param name the target as grpc-java takes it
 * @param local whether it is this machine by its name alone, so that it needs no TLS
 */
record Target(String name, boolean local) {
    private static final String OCTET = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
    private static final String LOCAL_ENDPOINT = "((?i:localhost)\\.?|\\[::1]|127(\\." + OCTET + "){3}):\\d+";
    private static final Pattern LOCAL = Pattern.compile("(dns:(///)?)?" + LOCAL_ENDPOINT
            + "|ipv[46]:" + LOCAL_ENDPOINT + "(," + LOCAL_ENDPOINT + ")*"
            + "|unix:(///|(?!//)).+|unix-abstract:(?!//).+");
    private static final Pattern HOST_AND_PORT = Pattern.compile("(\\[[^\\]]+]|[^:/\\[\\]\\s]+):\\d+");
    private static final List<String> SCHEMES = List.of("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:");

    /**
     * Reads a target.
     *
     * @throws IllegalArgumentException if it is a web address or names no port
     */
    static Target parse(String target) {
        String lower = target.toLowerCase(Locale.ROOT);
        if (lower.startsWith("http:") || lower.startsWith("https:")) {
            // It isn't shown: web addresses may hold passwords.
            throw new IllegalArgumentException("the target is a web address: write it as host:port, without http");
        }
        boolean scheme = SCHEMES.stream().anyMatch(target::startsWith) || target.contains("://");
        if (!scheme && !HOST_AND_PORT.matcher(target).matches()) {
            throw new IllegalArgumentException(
                    "target \"" + target + "\" is not host:port. Write an IPv6 address as [address]:port");
        }
        return new Target(target, LOCAL.matcher(target).matches());
    }
}
