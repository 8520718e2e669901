#!/usr/bin/env node
// Ask one question, then the same as a stream, with nothing but Node's own fetch (Node 18 or newer).
//
//   export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
//   node chat.mjs ["What is the capital of Italy? Answer with one word."]
//
// MODEL chooses another model.

const { OPENAI_BASE_URL: base, OPENAI_API_KEY: key } = process.env;
const model = process.env.MODEL || "Qwen/Qwen3-VL-8B-Instruct";
const question = process.argv.slice(2).join(" ") || "What is the capital of France? Answer with one word.";

async function ask(options) {
  const response = await fetch(`${base.replace(/\/$/, "")}/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
    body: JSON.stringify({
      model,
      messages: [{ role: "user", content: question }],
      max_tokens: 256,
      temperature: 0,
      ...options,
    }),
    signal: AbortSignal.timeout(120_000),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response;
}

async function whole() {
  const reply = await (await ask({})).json();
  const answer = reply.choices?.[0]?.message?.content;
  if (!answer) throw new Error(`the model answered nothing: ${JSON.stringify(reply)}`);
  console.log(answer);
}

// Server-sent events: lines that begin with "data: ", each with a piece of JSON; the last one is [DONE]. Lines that
// begin with a colon keep the connection open and mean nothing.
async function* events(response) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice(6).trim();
    }
  }
}

async function streamed() {
  let written = 0;
  let finish = null;
  let done = false;
  for await (const data of events(await ask({ stream: true }))) {
    if (data === "[DONE]") {
      done = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(`error in the stream: ${JSON.stringify(chunk.error)}`);
    const choice = chunk.choices[0];
    if (choice?.delta?.content) {
      process.stdout.write(choice.delta.content);
      written += choice.delta.content.length;
    }
    finish = choice?.finish_reason ?? finish;
  }
  process.stdout.write("\n");
  if (!written || !finish || !done) throw new Error(`the stream ended early (finish reason ${finish})`);
}

try {
  if (!base || !key) throw new Error("set OPENAI_BASE_URL and OPENAI_API_KEY");
  await whole();
  await streamed();
} catch (error) {
  console.error(`chat.mjs: ${error.message}${error.cause ? ` (${error.cause.message})` : ""}`);
  process.exitCode = 1;
}
