import { type DescField, type DescMessage, isMessage, type Message, toJson } from "@bufbuild/protobuf";

/** Makes JSON.stringify serialize a message and the messages in it, despite their big integers. */
export function makeSerializable(schema: DescMessage, message: Message): void {
  Object.defineProperty(message, "toJSON", { value: () => toJson(schema, message) });
  // Google's well-known types have JSON forms of their own.
  if (schema.typeName.startsWith("google.protobuf.")) {
    return;
  }
  for (const field of schema.fields) {
    if (field.message) {
      for (const value of valuesOf(message, field)) {
        if (isMessage(value, field.message)) {
          makeSerializable(field.message, value);
        }
      }
    }
  }
}

function valuesOf(message: Message, { oneof, localName, fieldKind }: DescField): unknown[] {
  const holder = message as unknown as Record<string, unknown>;
  if (oneof) {
    const chosen = holder[oneof.localName] as { case?: string; value?: unknown };
    return chosen.case === localName ? [chosen.value] : [];
  }
  const value = holder[localName];
  return fieldKind === "list" || fieldKind === "map" ? Object.values(value as object) : [value];
}
