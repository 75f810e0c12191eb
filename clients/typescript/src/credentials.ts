import type { Credentials } from "./options.js";

/** Most characters of a key or a token, as the server accepts them. */
const MAX_CREDENTIAL_LENGTH = 8192;

/**
 * Makes the authorization of each attempt; undefined if nothing says who calls.
 *
 * @throws TypeError if the key or token can't be sent. It isn't shown.
 */
export function authorizationOf({
  apiKey,
  token,
  tokenSource,
}: Credentials): (() => string | Promise<string>) | undefined {
  if ([apiKey, token, tokenSource].filter(Boolean).length > 1) {
    throw new TypeError("Give only one of apiKey, token and tokenSource");
  }
  if (apiKey || token) {
    const authorization = apiKey ? `ApiKey ${sendable(apiKey, "API key")}` : `Bearer ${sendable(token ?? "", "token")}`;
    return () => authorization;
  }
  return tokenSource && (async () => `Bearer ${sendable(await tokenSource(), "token of the token source")}`);
}

function sendable(value: unknown, kind: string): string {
  if (typeof value !== "string" || value.length === 0 || value.length > MAX_CREDENTIAL_LENGTH) {
    throw new TypeError(`The ${kind} must have 1 to ${MAX_CREDENTIAL_LENGTH} characters`);
  }
  if (!/^[!-~]+$/.test(value)) {
    throw new TypeError(`The ${kind} has blanks, a newline or other characters that can't be sent`);
  }
  return value;
}
