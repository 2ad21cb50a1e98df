// OpenAI's package for Node.js.
// packages: openai@7.59.0
import fs from "node:fs";
import OpenAI from "openai";
import { AUDIO, V1, check, said } from "./check_js.mjs";

const client = new OpenAI({ baseURL: V1, apiKey: "none", maxRetries: 0 });
const transcribe = (fields) =>
  client.audio.transcriptions.create({
    file: fs.createReadStream(AUDIO),
    model: "whisper-1",
    ...fields,
  });

await check("a file", async () => said((await transcribe({})).text));
await check("model gpt-4o-transcribe", async () =>
  said((await transcribe({ model: "gpt-4o-transcribe" })).text),
);
await check("a stream", async () => {
  let text = "";
  for await (const event of await transcribe({ model: "gpt-4o-transcribe", stream: true }))
    if (event.type === "transcript.text.delta") text += event.delta;
  said(text);
});
await check("models", async () => {
  if ((await client.models.list()).data.length === 0) throw new Error("none");
});
