/**
 * The client of Agenta AI services: a connection with the settings that they expect, calls of tools with arguments and results
 * as native types, and exceptions that say whether a tool may have run.
 *
 * <p>It is a layer on grpc-java, and works with the generated client of {@link ai.agenta.ai.v1}: {@link Client#channel()} is a
 * {@link io.grpc.ManagedChannel} for its stubs.
 */
@NullMarked
package ai.agenta.ai;

import org.jspecify.annotations.NullMarked;
