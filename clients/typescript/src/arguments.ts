import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

// protobuf reads at most 100 nested messages, and each level of JSON takes three.
const MAX_DEPTH = 32;

/**
 * The arguments as JSON. Properties that are undefined are left out.
 *
 * @throws TypeError if a value wouldn't arrive as it is. The message has its path.
 */
export function toArguments(args: object): JsonObject {
  const value = toJson(args, "arguments", MAX_DEPTH);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError("arguments: must be an object");
  }
  return value;
}

function toJson(value: unknown, path: string, depth: number): JsonValue {
  if (value === null || typeof value === "boolean" || (typeof value === "number" && Number.isFinite(value))) {
    return value;
  }
  if (typeof value === "string") {
    return text(value, path);
  }
  const isObject = Object.prototype.toString.call(value) === "[object Object]";
  if ((isObject || Array.isArray(value)) && depth === 0) {
    throw new TypeError(`${path.slice(0, 80)}…: nested too deep to be sent; send it as a string of JSON`);
  }
  if (Array.isArray(value)) {
    return value.map((item, index) => toJson(item, `${path}[${index}]`, depth - 1));
  }
  if (isObject) {
    const given = Object.entries(value as object).filter(([, item]) => item !== undefined);
    return Object.fromEntries(
      given.map(([key, item]) => [text(key, `${path}: a key`), toJson(item, `${path}.${key}`, depth - 1)]),
    );
  }
  throw new TypeError(`${path}: ${String(value)} can't be sent`);
}

function text(value: string, path: string): string {
  // protobuf would put other characters in the place of halves of a surrogate pair.
  if (!value.isWellFormed()) {
    throw new TypeError(`${path}: half of a surrogate pair can't be sent`);
  }
  return value;
}
