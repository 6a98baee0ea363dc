// Unmodified SDKs for Node: what they give through the gateway is what they give straight from a provider that speaks the
// format. Writes a line of JSON for each cell, with what the gateway's records are to say of it.

import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { GoogleGenAI } from "@google/genai";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { AFFIDAVIT_PROVIDER, AFFIDAVIT_BEDROCK, AFFIDAVIT_GATEWAY, AFFIDAVIT_KEY, AFFIDAVIT_CELLS } = process.env;
const WRONG_KEY = AFFIDAVIT_KEY.slice(0, -1) + (AFFIDAVIT_KEY.endsWith("a") ? "b" : "a");
const SIDES = ["provider", "gateway"];
const ANSWER = z.object({ answer: z.string(), sure: z.boolean() });
const PARAMETERS = { type: "object", properties: { key: { type: "string" } }, required: ["key"], additionalProperties: false };
const TOOL = { type: "function", function: { name: "lookup", description: "looks up", parameters: PARAMETERS } };
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

let number = 0;
const mark = () => `mark-${process.pid}-${String(++number).padStart(5, "0")}`;
const textOf = (word) => `The record of ${word} is kept.`;

// When requests with this word came to the providers, straight and through the gateway, in milliseconds.
async function seen(word) {
  const both = await Promise.all(
    [AFFIDAVIT_PROVIDER, AFFIDAVIT_BEDROCK].map(async (url) => (await fetch(`${url}/seen/${word}`)).json()),
  );
  return Object.fromEntries(SIDES.map((side) => [side, both.flatMap((came) => came[side])]));
}

// One call: where it goes, with which key, model and prompt.
function call(subject, side, prompt, { model, key, retries = 0 } = {}) {
  const base = side === "gateway" ? `${AFFIDAVIT_GATEWAY}/${subject.route}` : AFFIDAVIT_PROVIDER;
  const behind = side === "gateway" ? subject.behind : undefined;
  const own = side === "gateway" ? AFFIDAVIT_KEY : "sk-direct";
  return { base, key: key ?? own, model: model ?? behind ?? subject.model, prompt, retries };
}

// The openai SDK.

const client = ({ base, key, retries }) => new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: retries });
const asked = (c) => ({ model: c.model, messages: [{ role: "user", content: c.prompt }] });

function ofCompletion({ choices: [choice], usage, ...raw }) {
  return {
    text: choice.message.content,
    calls: (choice.message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
    finish: choice.finish_reason,
    usage: usage && [usage.prompt_tokens, usage.completion_tokens],
    raw: [choice, raw],
  };
}

const openai = {
  sdk: `openai (Node) ${version("openai")}`,
  provider: "its own",
  route: "openai",
  model: "gpt-4o-mini",
  whole: async (c) => ofCompletion(await client(c).chat.completions.create(asked(c))),
  async stream(c) {
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = [];
    for await (const chunk of await client(c).chat.completions.create({ ...asked(c), ...options })) chunks.push(chunk);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    const usage = chunks.at(-1).usage;
    const text = choices.map((choice) => choice.delta.content).filter(Boolean);
    return { text, finish: choices.at(-1).finish_reason, usage: [usage.prompt_tokens, usage.completion_tokens], raw: chunks };
  },
  tools: async (c) => ofCompletion(await client(c).chat.completions.create({ ...asked(c), tools: [TOOL] })),
  toolsStreamed: async (c) =>
    ofCompletion(await client(c).chat.completions.stream({ ...asked(c), tools: [TOOL] }).finalChatCompletion()),
  async toolAnswered(c) {
    const called = (await client(c).chat.completions.create({ ...asked(c), tools: [TOOL] })).choices[0].message;
    const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: "42" };
    const messages = [...asked(c).messages, called, result];
    return ofCompletion(await client(c).chat.completions.create({ ...asked(c), messages, tools: [TOOL] }));
  },
  async objects(c) {
    const form = zodResponseFormat(ANSWER, "answer");
    return (await client(c).chat.completions.parse({ ...asked(c), response_format: form })).choices[0].message.parsed;
  },
  async embed(c) {
    const got = await client(c).embeddings.create({ model: "text-embedding-3-small", input: [c.prompt, "b"] });
    return got.data.map((one) => one.embedding);
  },
  async leave(c) {
    let pieces = 0;
    for await (const chunk of await client(c).chat.completions.create({ ...asked(c), stream: true })) {
      if (chunk.choices[0].delta.content && ++pieces === 2) break;
    }
    return pieces;
  },
  error: (error) => ({
    class: error.constructor.name,
    status: error.status,
    message: error.error.message,
    retryAfter: error.headers.get("retry-after"),
  }),
};

// Anthropic's SDK.

const ofAnthropicApi = ({ base, key, retries }) => new Anthropic({ baseURL: base, apiKey: key, maxRetries: retries });
const MESSAGE_TOOL = { name: "lookup", description: "looks up", input_schema: PARAMETERS };
const messages = (c, more) => ({ model: c.model, max_tokens: 100, messages: [{ role: "user", content: c.prompt }], ...more });

function ofMessage({ content, stop_reason, usage, ...raw }) {
  const cached = (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);
  return {
    text: content.map((block) => block.text ?? "").join(""),
    calls: content.filter((block) => block.type === "tool_use").map((block) => [block.name, block.input]),
    finish: stop_reason,
    usage: [usage.input_tokens + cached, usage.output_tokens],
    raw: [content, raw, usage],
  };
}

const anthropic = {
  sdk: `@anthropic-ai/sdk ${version("@anthropic-ai/sdk")}`,
  provider: "its own",
  route: "anthropic",
  model: "claude-sonnet-4-6",
  whole: async (c) => ofMessage(await ofAnthropicApi(c).messages.create(messages(c))),
  async stream(c) {
    const stream = ofAnthropicApi(c).messages.stream(messages(c));
    const events = [];
    for await (const event of stream) events.push(event);
    const text = events.map((event) => event.delta?.text).filter(Boolean);
    return { ...ofMessage(await stream.finalMessage()), text, raw: events };
  },
  tools: async (c) => ofMessage(await ofAnthropicApi(c).messages.create(messages(c, { tools: [MESSAGE_TOOL] }))),
  toolsStreamed: async (c) =>
    ofMessage(await ofAnthropicApi(c).messages.stream(messages(c, { tools: [MESSAGE_TOOL] })).finalMessage()),
  async toolAnswered(c) {
    const asked = messages(c, { tools: [MESSAGE_TOOL] });
    const { content } = await ofAnthropicApi(c).messages.create(asked);
    const result = { type: "tool_result", tool_use_id: content.at(-1).id, content: "42" };
    asked.messages.push({ role: "assistant", content }, { role: "user", content: [result] });
    return ofMessage(await ofAnthropicApi(c).messages.create(asked));
  },
  async objects(c) {
    const form = messages(c, { output_config: { format: zodOutputFormat(ANSWER) } });
    return (await ofAnthropicApi(c).messages.parse(form)).parsed_output;
  },
  async leave(c) {
    let pieces = 0;
    for await (const event of await ofAnthropicApi(c).messages.create(messages(c, { stream: true }))) {
      if (event.type === "content_block_delta" && ++pieces === 2) break;
    }
    return pieces;
  },
  error: (error) => ({
    class: error.constructor.name,
    status: error.status,
    message: error.error.error.message,
    retryAfter: error.headers.get("retry-after"),
  }),
};

// Google's SDK.

function ofGenai({ base, key, retries }) {
  // It does not read `retry-after`, and waits as it is told.
  const retryOptions = { attempts: 1 + retries, initialDelay: 1.1, jitter: 0 };
  return new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: base, retryOptions } }).models;
}
const DECLARED = { functionDeclarations: [{ name: "lookup", description: "looks up", parametersJsonSchema: PARAMETERS }] };
const generate = (c, config, contents = c.prompt) => ({ model: c.model, contents, config });

function ofResponse({ candidates: [candidate], usageMetadata, sdkHttpResponse, ...raw }) {
  const parts = candidate.content?.parts ?? [];
  return {
    text: parts.map((part) => part.text ?? "").join(""),
    calls: parts.filter((part) => part.functionCall).map(({ functionCall }) => [functionCall.name, functionCall.args]),
    finish: candidate.finishReason,
    usage: usageMetadata && [usageMetadata.promptTokenCount, usageMetadata.candidatesTokenCount],
    raw: [candidate, usageMetadata, raw],
  };
}

async function streamed(c, config) {
  const parts = [];
  for await (const part of await ofGenai(c).generateContentStream(generate(c, config))) parts.push(ofResponse(part));
  return parts;
}

const google = {
  sdk: `@google/genai ${version("@google/genai")}`,
  provider: "Gemini",
  route: "gemini",
  model: "gemini-2.5-flash",
  hidesHeaders: true,
  whole: async (c) => ofResponse(await ofGenai(c).generateContent(generate(c))),
  async stream(c) {
    const parts = await streamed(c);
    return { ...parts.at(-1), text: parts.map((part) => part.text), raw: parts };
  },
  tools: async (c) => ofResponse(await ofGenai(c).generateContent(generate(c, { tools: [DECLARED] }))),
  toolsStreamed: async (c) => (await streamed(c, { tools: [DECLARED] })).at(-1),
  async toolAnswered(c) {
    const config = { tools: [DECLARED] };
    const called = (await ofGenai(c).generateContent(generate(c, config))).candidates[0].content;
    const result = { functionResponse: { name: "lookup", response: { result: "42" } } };
    const turns = [{ role: "user", parts: [{ text: c.prompt }] }, called, { role: "user", parts: [result] }];
    return ofResponse(await ofGenai(c).generateContent(generate(c, config, turns)));
  },
  async objects(c) {
    const form = { responseMimeType: "application/json", responseJsonSchema: z.toJSONSchema(ANSWER) };
    return JSON.parse((await ofGenai(c).generateContent(generate(c, form))).text);
  },
  async embed(c) {
    const got = await ofGenai(c).embedContent({ model: "gemini-embedding-001", contents: [c.prompt, "b"] });
    return got.embeddings.map((one) => one.values);
  },
  async leave(c) {
    const leaves = new AbortController();
    let pieces = 0;
    for await (const _ of await ofGenai(c).generateContentStream(generate(c, { abortSignal: leaves.signal }))) {
      if (++pieces === 2) break;
    }
    // Whoever leaves the loop leaves the connection as it is.
    leaves.abort();
    return pieces;
  },
  error: (error) => ({
    class: error.constructor.name,
    status: error.status,
    message: JSON.parse(error.message).error.message,
  }),
};

// The AI SDK.

const named = (model) => (c) => ({ model: model(c), prompt: c.prompt, maxRetries: c.retries });
const lookup = tool({ description: "looks up", inputSchema: z.object({ key: z.string() }) });
const answered = tool({ description: "looks up", inputSchema: z.object({ key: z.string() }), execute: async () => "42" });

function ofText({ text, toolCalls, finishReason, usage }) {
  const calls = toolCalls.map((call) => [call.toolName, call.input]);
  return { text, calls, finish: finishReason, usage: [usage.inputTokens, usage.outputTokens], raw: null };
}

function vercel(sdk, provider, route, model, more) {
  const of = named(more.model);
  return {
    sdk: `ai ${version("ai")} with ${sdk} ${version(sdk)}`,
    provider,
    route,
    model,
    mayReadOn: true,
    whole: async (c) => ofText(await generateText(of(c))),
    async stream(c) {
      const result = streamText(of(c));
      const text = [];
      for await (const piece of result.textStream) text.push(piece);
      const usage = await result.usage;
      return { text, finish: await result.finishReason, usage: [usage.inputTokens, usage.outputTokens], raw: null };
    },
    tools: async (c) => ofText(await generateText({ ...of(c), tools: { lookup } })),
    async toolsStreamed(c) {
      const result = streamText({ ...of(c), tools: { lookup } });
      await result.consumeStream();
      const [toolCalls, usage, finishReason] = [await result.toolCalls, await result.usage, await result.finishReason];
      return ofText({ text: "", toolCalls, usage, finishReason });
    },
    toolAnswered: async (c) =>
      ofText(await generateText({ ...of(c), tools: { lookup: answered }, stopWhen: stepCountIs(2) })),
    objects: async (c) => (await generateObject({ ...of(c), schema: ANSWER })).object,
    embed: more.embedding && (async (c) => (await embedMany({ model: more.embedding(c), values: [c.prompt, "b"] })).embeddings),
    async leave(c) {
      const leaves = new AbortController();
      let pieces = 0;
      const result = streamText({ ...of(c), abortSignal: leaves.signal });
      for await (const _ of result.textStream) if (++pieces === 2) leaves.abort();
      return pieces;
    },
    error(error) {
      const cause = error.lastError ?? error;
      return {
        class: `${error.name} ${cause.name}`,
        status: cause.statusCode,
        message: cause.message,
        retryAfter: cause.responseHeaders["retry-after"] ?? null,
        retryable: cause.isRetryable,
      };
    },
  };
}

const ofOpenai = ({ base, key }) => createOpenAI({ baseURL: `${base}/v1`, apiKey: key });
const openaiModels = { model: (c) => ofOpenai(c).chat(c.model), embedding: (c) => ofOpenai(c).embedding("text-embedding-3-small") };
const ofAnthropic = ({ base, key }) => createAnthropic({ baseURL: `${base}/v1`, apiKey: key });
const ANTHROPIC = "claude-sonnet-4-6";
const ofGoogle = ({ base, key }) => createGoogleGenerativeAI({ baseURL: `${base}/v1beta`, apiKey: key });

const withOpenai = vercel("@ai-sdk/openai", "OpenAI", "openai", "gpt-4o-mini", openaiModels);
const withAnthropic = {
  ...vercel("@ai-sdk/anthropic", "Anthropic", "anthropic", ANTHROPIC, { model: (c) => ofAnthropic(c)(c.model) }),
  // Of models that it does not know it wants one call of a tool and no other; Google's API cannot be told so.
  cannotAskForObjects: ["Gemini", "Vertex AI"],
};

// Behind translation: provider, the end of the route's name, model.
const FURTHER = [
  ["Gemini", "gemini", "gemini-2.5-flash"],
  ["Vertex AI", "vertex", "gemini-2.5-flash"],
  ["Bedrock", "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"],
];
const BEHIND = {
  openai: [["Anthropic", "anthropic", ANTHROPIC], ...FURTHER],
  anthropic: [["OpenAI", "openai", "gpt-4o-mini"], ...FURTHER],
};

// The subject, and the same in front of each provider that the gateway translates its dialect for.
const andTranslated = (subject) => [
  subject,
  ...BEHIND[subject.route].map(([provider, to, behind]) => ({
    ...subject,
    translated: true,
    provider,
    route: `${subject.route}-to-${to}`,
    behind,
  })),
];

const SUBJECTS = [
  ...[openai, anthropic, withOpenai, withAnthropic].flatMap(andTranslated),
  google,
  vercel("@ai-sdk/google", "Gemini", "gemini", "gemini-2.5-flash", {
    model: (c) => ofGoogle(c)(c.model),
    embedding: (c) => ofGoogle(c).embedding("gemini-embedding-001"),
  }),
];

class Cell {
  constructor(subject) {
    this.subject = subject;
    this.asked = [];
  }

  // Both sides at once: what each gave, or threw.
  async ask(way, { prompt = "Is WORD kept?", end = "complete", ...options } = {}) {
    const words = { provider: mark(), gateway: mark() };
    const run = async (side) => {
      try {
        return { got: await way(call(this.subject, side, prompt.replace("WORD", words[side]), options)) };
      } catch (error) {
        return { error };
      }
    };
    const [provider, gateway] = await Promise.all(SIDES.map(run));
    const times = (await seen(words.gateway)).gateway;
    this.asked.push({ mark: words.gateway, tries: times.length, end, usage: gateway.got?.usage ?? null });
    return { words, results: { provider, gateway } };
  }

  async same(way, options) {
    const { words, results } = await this.ask(way, options);
    const shown = SIDES.map((side) => {
      if (results[side].error) throw results[side].error;
      const got = JSON.parse(JSON.stringify(results[side].got).replaceAll(words[side], "MARK"));
      // Another provider has another raw answer, and counts its own prompt.
      const hasMore = this.subject.translated && got.raw !== undefined;
      return hasMore ? { ...got, raw: null, usage: got.usage?.slice(1) } : got;
    });
    assert.deepEqual(shown[1], shown[0]);
    return [results.gateway.got, words.gateway];
  }

  async raised(status, retries) {
    const { words, results } = await this.ask(this.subject.whole, { model: `fail-${status}`, retries });
    const shown = [];
    for (const side of SIDES) {
      assert.ok(results[side].error, `${side} threw nothing`);
      const times = (await seen(words[side]))[side];
      // Where no wait was asked for, how long it takes is the SDK's own affair.
      const waited = status !== 429 || times.slice(1).every((time, n) => time - times[n] >= 950);
      shown.push({ ...this.subject.error(results[side].error), tries: times.length, waited });
    }
    assert.deepEqual(shown[1], shown[0]);
    return shown[1];
  }
}

// What the other dialect has no word for: nothing is sent.
async function refusedAsUntranslatable(cell, way) {
  const { words, results } = await cell.ask(way, { end: "refused" });
  const { error } = results.gateway;
  const reason = error.headers?.get("x-affidavit-reason") ?? error.responseHeaders["x-affidavit-reason"];
  assert.deepEqual([reason, (await seen(words.gateway)).gateway], ["untranslatable", []]);
  return "refused: untranslatable";
}

const COLUMNS = {
  async whole(cell) {
    const [got, word] = await cell.same(cell.subject.whole);
    assert.equal(got.text, textOf(word));
  },
  async streamed(cell) {
    const [got, word] = await cell.same(cell.subject.stream);
    assert.equal(got.text.join(""), textOf(word));
    assert.ok(got.text.length >= 6);
  },
  async tools(cell) {
    for (const way of [cell.subject.tools, cell.subject.toolsStreamed]) {
      assert.deepEqual((await cell.same(way))[0].calls, [["lookup", { key: "a b" }]]);
    }
    const [got, word] = await cell.same(cell.subject.toolAnswered);
    assert.equal(got.text, textOf(word));
  },
  async "structured output"(cell) {
    const { cannotAskForObjects = [], provider, objects } = cell.subject;
    if (cannotAskForObjects.includes(provider)) return refusedAsUntranslatable(cell, objects);
    assert.deepEqual((await cell.same(cell.subject.objects))[0], { answer: "kept", sure: true });
  },
  async embeddings(cell) {
    if (!cell.subject.embed) return "not in this SDK";
    if (cell.subject.translated) return refusedAsUntranslatable(cell, cell.subject.embed);
    assert.deepEqual((await cell.same(cell.subject.embed))[0].map((one) => one.length), [3, 3]);
  },
  async exceptions(cell) {
    for (const status of [400, 401, 404, 429, 500]) {
      const got = await cell.raised(status, 0);
      assert.deepEqual([got.status, got.tries], [status, 1]);
      if (!cell.subject.hidesHeaders) assert.equal(got.retryAfter, status === 429 ? "1" : null);
    }
  },
  async "tries, retry-after"(cell) {
    for (const status of [429, 500]) assert.equal((await cell.raised(status, 1)).tries, 2);
  },
  async "left mid-stream"(cell) {
    const { mayReadOn } = cell.subject;
    const end = mayReadOn ? "client_abort or complete" : "client_abort";
    const [got] = await cell.same(cell.subject.leave, { prompt: "Say slowly: is WORD kept?", end });
    assert.equal(got, 2);
    return mayReadOn ? "same; it may read on" : undefined;
  },
  async "50 at once"(cell) {
    const { subject } = cell;
    const words = Array.from({ length: 50 }, mark);
    const ask = (word, n) => (n % 2 ? subject.stream : subject.whole)(call(subject, "gateway", `Is ${word} kept?`));
    for (const [n, got] of (await Promise.all(words.map(ask))).entries()) {
      assert.equal([got.text].flat().join(""), textOf(words[n]));
      cell.asked.push({ mark: words[n], tries: 1, end: "complete", usage: got.usage });
    }
  },
  async "wrong gateway key"(cell) {
    const { subject } = cell;
    const thrown = (c) => subject.whole(c).then(() => assert.fail("nothing was thrown"), (error) => error);
    const own = subject.error(await thrown(call(subject, "provider", "Is it?", { model: "fail-401" })));
    const word = mark();
    const got = subject.error(await thrown(call(subject, "gateway", `Is ${word} kept?`, { key: WRONG_KEY })));
    assert.deepEqual([got.class, got.status], [own.class, 401]);
    assert.match(got.message, /gateway key/);
    cell.asked.push({ mark: word, tries: 0, end: "refused", usage: null });
  },
  others: async () => "-",
};

// Mostly they wait: several at a time.
const CELLS = SUBJECTS.flatMap((subject) => Object.entries(COLUMNS).map(([column, run]) => ({ subject, column, run })));
describe("each cell", { concurrency: 4 }, () => {
  for (const { subject, column, run } of CELLS) {
    test(`${subject.sdk} to ${subject.provider}: ${column}`, async () => {
      const cell = new Cell(subject);
      const write = (got) => {
        const line = { sdk: subject.sdk, provider: subject.provider, column, got, asked: cell.asked };
        appendFileSync(AFFIDAVIT_CELLS, `${JSON.stringify(line)}\n`);
      };
      try {
        write((await run(cell)) ?? "same");
      } catch (error) {
        write("DIFFERENT");
        throw error;
      }
    });
  }
});
