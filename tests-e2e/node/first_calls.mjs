// The first calls with OpenAI's client for Node; prints what came back as JSON.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = process.argv[2];
const messages = [{ role: "user", content: "Which city is the capital of France?" }];

const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 });

let streamed = "";
const stream = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16, stream: true });
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";

const embedded = await client.embeddings.create({ model: "all-minilm-l6-v2", input: "a cat" });

const models = [];
for await (const listed of client.models.list()) models.push(listed.id);

const refusal = await new OpenAI({ apiKey: "dz-demo-nokey-nosecret", maxRetries: 0 }).models.list().catch((error) => error);

console.log(
  JSON.stringify({
    answer: answer.choices[0].message.content,
    requestId: answer._request_id,
    streamed,
    dimensions: embedded.data[0].embedding.length,
    models,
    refusal: { name: refusal.constructor.name, status: refusal.status, code: refusal.code },
  }),
);
