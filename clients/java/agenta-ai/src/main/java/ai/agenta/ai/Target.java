package ai.agenta.ai;

import io.grpc.NameResolverRegistry;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Where a server is: the same table for the clients of all languages, tests/conformance/targets.json.
 *
 * @param name the target as grpc-java takes it
 * @param local whether it is this machine by its name alone, so that it needs no TLS
 */
record Target(String name, boolean local) {
    private static final String PORT = "([1-9]\\d{0,3}|[1-5]\\d{4}|6[0-4]\\d{3}|65[0-4]\\d{2}|655[0-2]\\d|6553[0-5])";
    private static final String OCTET = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
    private static final String ENDPOINT =
            "([0-9A-Za-z_.-]+|\\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[0-9A-Za-z_.~-]+)?]):" + PORT;
    private static final String LOCAL_ENDPOINT = "((?i:localhost)\\.?|\\[::1]|127(\\." + OCTET + "){3}):" + PORT;
    private static final Pattern LOCAL = Pattern.compile("(dns:(///)?)?" + LOCAL_ENDPOINT + "|unix:(///|(?!//)).+");
    private static final Pattern HOST_AND_PORT = Pattern.compile(ENDPOINT);
    private static final Pattern SCHEME = Pattern.compile("([a-z][a-z0-9+.-]*):.*");

    /** The schemes of grpc-java itself, of which this client knows what follows them. It has no name server of one's own. */
    private static final Map<String, Pattern> WITH_SCHEME =
            Map.of("dns", Pattern.compile("dns:(///)?" + ENDPOINT), "unix", Pattern.compile("unix:(///.|/?[^/]).*"));

    /**
     * Reads a target.
     *
     * @throws IllegalArgumentException if it is a web address, has no port from 1 to 65535, or is of a kind that grpc-java
     *     can't connect to
     */
    static Target parse(String target) {
        String lower = target.toLowerCase(Locale.ROOT);
        if (lower.startsWith("http:") || lower.startsWith("https:")) {
            // It isn't shown: web addresses may hold passwords.
            throw new IllegalArgumentException("the target is a web address: give host:port, without http");
        }
        if (!isAddress(target)) {
            // What holds an @ may hold a password.
            String shown = target.contains("@") ? "the target" : "target \"" + target + "\"";
            throw new IllegalArgumentException(shown + " is not an address that this client can connect to: give"
                    + " host:port with a port from 1 to 65535, [address]:port for IPv6, or unix:path");
        }
        return new Target(target, LOCAL.matcher(target).matches());
    }

    private static boolean isAddress(String target) {
        Matcher found = SCHEME.matcher(target);
        String scheme = found.matches() ? found.group(1) : "";
        Pattern pattern = WITH_SCHEME.get(scheme);
        if (pattern != null) {
            return pattern.matcher(target).matches();
        }
        // A program may have a resolver of its own. That of xds needs the service config that this client replaces.
        return HOST_AND_PORT.matcher(target).matches()
                || !scheme.isEmpty()
                        && !scheme.equals("xds")
                        && NameResolverRegistry.getDefaultRegistry().getProviderForScheme(scheme) != null;
    }
}
