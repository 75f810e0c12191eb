package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import ai.agenta.ai.FakeService.Answer;
import io.grpc.Attributes;
import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.SecurityLevel;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.Epoll;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollIoHandler;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.ServerSocket;
import java.net.SocketTimeoutException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import java.util.logging.Level;
import java.util.logging.Logger;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class CredentialsTest {
    // grpc-java sets what a Unix socket doesn't have, and Netty warns of it. The channel warns of names that nobody
    // has. Kept
    // here, or the levels would be forgotten.
    private static final List<Logger> LOGGERS = List.of(
            Logger.getLogger("io.grpc.netty.shaded.io.netty.bootstrap"),
            Logger.getLogger("io.grpc.internal.ManagedChannelImpl"));

    static {
        LOGGERS.forEach(logger -> logger.setLevel(Level.SEVERE));
    }

    /** What the server was told of who calls. */
    private static Optional<String> seen(FakeService service, String target, UnaryOperator<Client.Builder> options) {
        try (Client client = options.apply(Client.to(target)).build()) {
            client.callTool(Client.request("tools.x.y.z", Map.of()));
        }
        return service.arrivals.get(0).authorization();
    }

    @Test
    void keysAndTokensAreSentOverLoopback() throws IOException {
        Map<Optional<String>, UnaryOperator<Client.Builder>> cases = Map.of(
                Optional.of("ApiKey aai_k"), builder -> builder.apiKey("aai_k"),
                Optional.of("Bearer t"), builder -> builder.token(() -> "t"),
                Optional.empty(), builder -> builder.apiKey(""));
        for (var each : cases.entrySet()) {
            try (FakeService service = new FakeService(Answer.done())) {
                assertEquals(each.getKey(), seen(service, service.target(), each.getValue()));
            }
        }
    }

    @Test
    void keyIsSentOverSocket(@TempDir Path folder) throws IOException {
        assumeTrue(Epoll.isAvailable(), "grpc-java has Unix sockets on Linux alone");
        Path socket = folder.resolve("s");
        var group = new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory());
        var builder = NettyServerBuilder.forAddress(new DomainSocketAddress(socket.toFile()))
                .channelType(EpollServerDomainSocketChannel.class)
                .bossEventLoopGroup(group)
                .workerEventLoopGroup(group);
        try (FakeService service = new FakeService(builder, Answer.done())) {
            assertEquals(Optional.of("ApiKey k"), seen(service, "unix:" + socket, options -> options.apiKey("k")));
        } finally {
            group.shutdownGracefully();
        }
    }

    @Test
    void socketThatIsMissing(@TempDir Path folder) {
        assumeTrue(Epoll.isAvailable(), "grpc-java has Unix sockets on Linux alone");
        try (Client client = Client.to("unix:" + folder.resolve("s")).build()) {
            var failure =
                    assertThrows(CallException.class, () -> client.callTool(Client.request("tools.x.y.z", Map.of())));
            assertTrue(failure.getMessage().startsWith("UNAVAILABLE: no connection: "), failure::getMessage);
            assertTrue(failure.notRun());
        }
    }

    @Test
    void keyIsSentOverTls(@TempDir Path folder) throws IOException, InterruptedException, GeneralSecurityException {
        KeyStore store = certificate(folder.resolve("store"));
        var own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        own.init(store, "changeit".toCharArray());
        var trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trusted.init(store);
        var server = TlsServerCredentials.newBuilder()
                .keyManager(own.getKeyManagers())
                .build();
        var client = TlsChannelCredentials.newBuilder()
                .trustManager(trusted.getTrustManagers())
                .build();
        try (FakeService service = new FakeService(server, Answer.done())) {
            assertEquals(
                    Optional.of("ApiKey k"),
                    seen(
                            service,
                            service.target(),
                            options -> options.transport(client).apiKey("k")));
            var untrusting = TlsChannelCredentials.create();
            var failure = assertThrows(
                    CallException.class,
                    () -> seen(
                            service,
                            service.target(),
                            options -> options.transport(untrusting).apiKey("k")));
            assertEquals(Status.Code.UNAVAILABLE, failure.code());
            assertTrue(failure.notRun());
            assertTrue(failure.getMessage().startsWith("UNAVAILABLE: TLS failed: "), failure::getMessage);
            assertEquals(1, service.arrivals.size());
        }
    }

    /** One for 127.0.0.1 that trusts itself. */
    private static KeyStore certificate(Path file) throws IOException, InterruptedException, GeneralSecurityException {
        var keytool = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "keytool")
                                .toString(),
                        "-genkeypair",
                        "-alias",
                        "test",
                        "-keyalg",
                        "EC",
                        "-dname",
                        "CN=test",
                        "-ext",
                        "san=ip:127.0.0.1",
                        "-storetype",
                        "PKCS12",
                        "-storepass",
                        "changeit",
                        "-keystore",
                        file.toString())
                .redirectErrorStream(true)
                .start();
        String said = new String(keytool.getInputStream().readAllBytes());
        assertEquals(0, keytool.waitFor(), said);
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream stream = Files.newInputStream(file)) {
            store.load(stream, "changeit".toCharArray());
        }
        KeyStore both = KeyStore.getInstance("PKCS12");
        both.load(null, null);
        both.setKeyEntry(
                "own",
                store.getKey("test", "changeit".toCharArray()),
                "changeit".toCharArray(),
                store.getCertificateChain("test"));
        both.setCertificateEntry("trusted", store.getCertificate("test"));
        return both;
    }

    /** Whatever a supplier throws ends the call at once. */
    @Test
    void tokenSourceThatFails() throws IOException {
        for (Throwable thrown : List.of(
                new IllegalStateException("secret"),
                new StackOverflowError("secret"),
                // of the one who issues tokens, not of the server
                new UncheckedIOException(new ConnectException("secret")))) {
            try (FakeService service = new FakeService(Answer.done())) {
                Supplier<String> failing = () -> {
                    throw ToolCallTest.unchecked(thrown);
                };
                var failure = assertThrows(
                        CallException.class, () -> seen(service, service.target(), options -> options.token(failing)));
                assertEquals(Status.Code.UNAUTHENTICATED, failure.code());
                assertTrue(failure.notRun());
                assertEquals(
                        "UNAUTHENTICATED: The token source failed: "
                                + thrown.getClass().getName() + ". Nothing was sent, so the tool was not run.",
                        failure.getMessage());
                assertEquals(List.of(), service.arrivals);
            }
        }
    }

    @Test
    void tokenSourceThatHangs() throws IOException {
        var forever = new CompletableFuture<String>();
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).token(forever::join).build()) {
            var failure = assertThrows(
                    CallException.class,
                    () -> client.callTool(Client.request("tools.x.y.z", Map.of()), Duration.ofMillis(200)));
            assertEquals(Status.Code.DEADLINE_EXCEEDED, failure.code());
            assertTrue(failure.notRun());
        } finally {
            forever.complete("");
        }
    }

    /** Nor does it keep a call from ending with its client. */
    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void closingEndsCallsThatWaitForTheirToken(boolean retries) throws Exception {
        var asked = new CompletableFuture<Void>();
        var forever = new CompletableFuture<String>();
        try (FakeService service = new FakeService(Answer.done())) {
            var builder = Client.to(service.target()).token(() -> {
                asked.complete(null);
                return forever.join();
            });
            Client client = (retries ? builder : builder.disableRetries()).build();
            var call = client.callToolAsync(Client.request("tools.x.y.z", Map.of()), ToolCallOptions.DEFAULT);
            asked.get(20, TimeUnit.SECONDS);
            client.close();
            var thrown = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
            var failure = assertInstanceOf(CallException.class, thrown.getCause());
            assertEquals(
                    "CANCELLED: The client was closed. Nothing was sent, so the tool was not run.",
                    failure.getMessage());
        } finally {
            forever.complete("");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"aai_1\n", "aai_1 2", "aai_é"})
    void secretThatCannotBeSent(String secret) throws IOException {
        try (FakeService service = new FakeService(Answer.done())) {
            var failure = assertThrows(
                    CallException.class, () -> seen(service, service.target(), options -> options.apiKey(secret)));
            assertEquals(Status.Code.UNAUTHENTICATED, failure.code());
            assertFalse(failure.getMessage().contains("aai_"), failure::getMessage);
            assertTrue(
                    failure.getMessage().endsWith("Nothing was sent, so the tool was not run."), failure::getMessage);
            assertEquals(List.of(), service.arrivals);
        }
    }

    /** Whether a connection to a peer lets calls out: a name that passes for this machine may lead elsewhere. */
    @ParameterizedTest
    @CsvSource({
        "PRIVACY_AND_INTEGRITY, 10.0.0.1,  true",
        "INTEGRITY,             10.0.0.1,  false",
        "NONE,                  10.0.0.1,  false",
        "NONE,                  ::,        false",
        "NONE,                  127.0.0.1, true",
        "NONE,                  ::1,       true",
    })
    void plaintextStaysOnThisMachine(SecurityLevel level, String peer, boolean goes) {
        var outcome = new Outcome();
        new Credentials("ApiKey", () -> "k")
                .applyRequestMetadata(new Connection(level, new InetSocketAddress(peer, 1)), Runnable::run, outcome);
        assertEquals(goes ? List.of() : List.of(Status.Code.UNAUTHENTICATED), outcome.failures);
        assertEquals(goes ? 1 : 0, outcome.headers.size());
    }

    /** A proxy could read along, and one on this machine passes for the server itself. */
    @ParameterizedTest
    @ValueSource(strings = {"localhost:1", "agenta.invalid:1"})
    void plaintextTakesNoProxy(String target) throws IOException {
        var before = ProxySelector.getDefault();
        try (var proxy = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
                Client client = Client.to(target)
                        .transport(InsecureChannelCredentials.create())
                        .apiKey("k")
                        .disableRetries()
                        .build()) {
            ProxySelector.setDefault(ProxySelector.of((InetSocketAddress) proxy.getLocalSocketAddress()));
            var request = Client.request("tools.x.y.z", Map.of());
            assertThrows(CallException.class, () -> client.callTool(request, Duration.ofSeconds(2)));
            proxy.setSoTimeout(1);
            assertThrows(SocketTimeoutException.class, proxy::accept);
        } finally {
            ProxySelector.setDefault(before);
        }
    }

    private static final class Connection extends CallCredentials.RequestInfo {
        private final SecurityLevel level;
        private final Attributes attributes;

        Connection(SecurityLevel level, InetSocketAddress peer) {
            this.level = level;
            this.attributes = Attributes.newBuilder()
                    .set(Grpc.TRANSPORT_ATTR_REMOTE_ADDR, peer)
                    .build();
        }

        @Override
        public MethodDescriptor<?, ?> getMethodDescriptor() {
            throw new UnsupportedOperationException();
        }

        @Override
        public SecurityLevel getSecurityLevel() {
            return level;
        }

        @Override
        public String getAuthority() {
            return "localhost";
        }

        @Override
        public Attributes getTransportAttrs() {
            return attributes;
        }
    }

    private static final class Outcome extends CallCredentials.MetadataApplier {
        final List<Metadata> headers = new ArrayList<>();
        final List<Status.Code> failures = new ArrayList<>();

        @Override
        public void apply(Metadata applied) {
            headers.add(applied);
        }

        @Override
        public void fail(Status status) {
            failures.add(status.getCode());
        }
    }
}
