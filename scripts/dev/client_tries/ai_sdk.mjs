// Vercel's AI SDK.
// packages: ai@7.0.173 @ai-sdk/openai@4.0.118
import fs from "node:fs";
import * as ai from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { AUDIO, V1, check, said } from "./check_js.mjs";

const transcribe = ai.transcribe ?? ai.experimental_transcribe;
const provider = createOpenAI({ baseURL: V1, apiKey: "none" });

for (const model of ["whisper-1", "gpt-4o-transcribe"]) {
  await check(`model ${model}`, async () => {
    const audio = fs.readFileSync(AUDIO);
    said((await transcribe({ model: provider.transcription(model), audio, maxRetries: 0 })).text);
  });
}
