/**
 * Calls Agenta AI services: the connection that they want, calls of tools with arguments and results in native types, and
 * exceptions that say whether a tool was run.
 *
 * <p>All of it is built of what grpc-java has, and goes with the generated client of {@link ai.agenta.ai.v1}: {@link
 * Client#channel()} is a {@link io.grpc.ManagedChannel} for its stubs.
 */
@NullMarked
package ai.agenta.ai;

import org.jspecify.annotations.NullMarked;
