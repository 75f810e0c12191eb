// The TypeScript SDK: node client.mjs REVISION URL, or REVISION COMMAND ARGUMENTS…
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const TEMPLATE = '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}';
const [revision, first, ...rest] = process.argv.slice(2);
const transport = first.startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(first))
  : new StdioClientTransport({ command: first, args: rest, env: process.env, stderr: "inherit" });
const client = new Client(
  { name: "foreign", version: "1" },
  { versionNegotiation: { mode: revision === "2025-11-25" ? "legacy" : { pin: revision } } },
);
await client.connect(transport);
const { tools } = await client.listTools();
const progress = [];
const name = tools[0].name;
const refined = await client.callTool(
  { name, arguments: { prompt_template_json: TEMPLATE } },
  { onprogress: ({ message }) => progress.push(message) },
);
const wrong = await client.callTool({ name, arguments: { prompt_template_json: 3 } });
const unknown = await client.callTool({ name: "tools.no.such.tool", arguments: {} }).catch((error) => error.code);
console.log(
  JSON.stringify({
    tools: tools.map((tool) => tool.name),
    progress,
    messages: refined.structuredContent.messages,
    wrong: [wrong.isError, wrong.content[0].text],
    unknown,
  }),
);
await client.close();
