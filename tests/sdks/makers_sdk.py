"""The SDKs of Cohere, Mistral, Ollama and Groq."""

import json

import cohere
import groq
import ollama
from mistralai.client import Mistral as MistralClient
from mistralai.client.utils import BackoffStrategy, RetryConfig
from openai_sdk import Chat, ask, of_completion
from subject import TOOL, Answer, Subject, said

SCHEMA = Answer.model_json_schema()


class Cohere(Subject):
    package = "cohere"
    route = "cohere"
    model = "command-a-03-2025"

    def make(self, base, key, retries):
        return cohere.ClientV2(base_url=base, api_key=key, max_retries=retries)

    def of(self, answer):
        text = "".join(part.text for part in answer.message.content or [])
        calls = [[call.function.name, json.loads(call.function.arguments)] for call in answer.message.tool_calls or []]
        return said(text, calls, answer.finish_reason, self.counted(answer.usage), answer)

    def counted(self, usage):
        """What is billed: the record's tokens are these."""
        return [int(usage.billed_units.input_tokens), int(usage.billed_units.output_tokens)]

    def whole(self, c):
        return self.of(c.client.chat(model=c.model, messages=ask(c.prompt)))

    def stream(self, c):
        events = list(c.client.chat_stream(model=c.model, messages=ask(c.prompt)))
        pieces = [event.delta.message.content.text for event in events if event.type == "content-delta"]
        end = events[-1].delta
        return said(pieces, finish=end.finish_reason, usage=self.counted(end.usage), raw=events)

    def tools(self, c):
        return self.of(c.client.chat(model=c.model, messages=ask(c.prompt), tools=[TOOL]))

    def tools_streamed(self, c):
        events = list(c.client.chat_stream(model=c.model, messages=ask(c.prompt), tools=[TOOL]))
        start = next(event.delta.message.tool_calls.function.name for event in events if event.type == "tool-call-start")
        pieces = [event.delta.message.tool_calls.function.arguments for event in events if event.type == "tool-call-delta"]
        return said(calls=[[start, json.loads("".join(pieces))]], usage=self.counted(events[-1].delta.usage), raw=events)

    def tool_answered(self, c):
        called = c.client.chat(model=c.model, messages=ask(c.prompt), tools=[TOOL]).message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "42"}
        return self.of(c.client.chat(model=c.model, messages=[*ask(c.prompt), called, result], tools=[TOOL]))

    def objects(self, c):
        form = {"type": "json_object", "json_schema": SCHEMA}
        answer = c.client.chat(model=c.model, messages=ask(c.prompt), response_format=form)
        return json.loads(answer.message.content[0].text)

    def embed(self, c):
        asked = {"model": "embed-v4.0", "input_type": "search_document", "embedding_types": ["float"]}
        return c.client.embed(texts=[c.prompt, "b"], **asked).embeddings.float_

    def leave(self, c):
        stream = c.client.chat_stream(model=c.model, messages=ask(c.prompt))
        pieces = 0
        for event in stream:
            pieces += event.type == "content-delta"
            if pieces == 2:
                stream.close()
                return pieces

    def message(self, error):
        return str(error.body)

    def rerank(self, c):
        got = c.client.rerank(model="rerank-v3.5", query=c.prompt, documents=["a", "b"])
        return [[result.index, result.relevance_score] for result in got.results]

    @property
    def others(self):
        return [self.rerank]


class Mistral(Subject):
    package = "mistralai"
    route = "mistral"
    model = "mistral-small-latest"

    def make(self, base, key, retries):
        # It counts time and no tries: one wait is all that fits.
        again = RetryConfig("backoff", BackoffStrategy(700, 700, 1, 500, 1), False)
        return MistralClient(server_url=base, api_key=key, retry_config=again if retries else None)

    def whole(self, c):
        return of_completion(c.client.chat.complete(model=c.model, messages=ask(c.prompt)))

    def stream(self, c):
        chunks = [event.data for event in c.client.chat.stream(model=c.model, messages=ask(c.prompt))]
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
        return said(pieces, finish=[c.choices[0].finish_reason for c in chunks if c.choices][-1], raw=chunks)

    def tools(self, c):
        return of_completion(c.client.chat.complete(model=c.model, messages=ask(c.prompt), tools=[TOOL]))

    def tools_streamed(self, c):
        chunks = [event.data for event in c.client.chat.stream(model=c.model, messages=ask(c.prompt), tools=[TOOL])]
        calls = [call.function for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        return said(calls=[[calls[0].name, json.loads("".join(call.arguments for call in calls))]], raw=chunks)

    def tool_answered(self, c):
        called = c.client.chat.complete(model=c.model, messages=ask(c.prompt), tools=[TOOL]).choices[0].message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "42"}
        messages = [*ask(c.prompt), called, result]
        return of_completion(c.client.chat.complete(model=c.model, messages=messages, tools=[TOOL]))

    def objects(self, c):
        return c.client.chat.parse(Answer, model=c.model, messages=ask(c.prompt)).choices[0].message.parsed

    def embed(self, c):
        return [one.embedding for one in c.client.embeddings.create(model="mistral-embed", inputs=[c.prompt, "b"]).data]

    def leave(self, c):
        pieces = 0
        with c.client.chat.stream(model=c.model, messages=ask(c.prompt)) as stream:
            for event in stream:
                pieces += bool(event.data.choices[0].delta.content)
                if pieces == 2:
                    return pieces

    def message(self, error):
        return error.body


class Ollama(Subject):
    package = "ollama"
    route = "ollama"
    model = "llama3.2"
    tries_again = False
    shows_headers = False

    def make(self, base, key, retries):
        return ollama.Client(host=base, headers={"Authorization": f"Bearer {key}"})

    def of(self, answer):
        calls = [[call.function.name, call.function.arguments] for call in answer.message.tool_calls or []]
        return said(answer.message.content, calls, answer.done_reason, [answer.prompt_eval_count, answer.eval_count], answer)

    def whole(self, c):
        return self.of(c.client.chat(model=c.model, messages=ask(c.prompt)))

    def stream(self, c):
        parts = list(c.client.chat(model=c.model, messages=ask(c.prompt), stream=True))
        raw = [part.model_dump(mode="json") for part in parts]
        return {**self.of(parts[-1]), "text": [part.message.content for part in parts], "raw": raw}

    def tools(self, c):
        return self.of(c.client.chat(model=c.model, messages=ask(c.prompt), tools=[TOOL]))

    def tools_streamed(self, c):
        parts = list(c.client.chat(model=c.model, messages=ask(c.prompt), tools=[TOOL], stream=True))
        return {**self.of(parts[-1]), "calls": self.of(parts[0])["calls"]}

    def tool_answered(self, c):
        called = c.client.chat(model=c.model, messages=ask(c.prompt), tools=[TOOL]).message
        result = {"role": "tool", "tool_name": "lookup", "content": "42"}
        return self.of(c.client.chat(model=c.model, messages=[*ask(c.prompt), called, result], tools=[TOOL]))

    def objects(self, c):
        answer = c.client.chat(model=c.model, messages=ask(c.prompt), format=SCHEMA)
        return Answer.model_validate_json(answer.message.content)

    def embed(self, c):
        return c.client.embed(model=c.model, input=[c.prompt, "b"]).embeddings

    def leave(self, c):
        stream = c.client.chat(model=c.model, messages=ask(c.prompt), stream=True)
        pieces = [next(stream) for _ in range(2)]
        stream.close()
        return len(pieces)

    def message(self, error):
        return error.error

    def generate(self, c):
        parts = list(c.client.generate(model=c.model, prompt=c.prompt, stream=True))
        assert len(parts) == 7
        return [c.client.generate(model=c.model, prompt=c.prompt).response, *(part.response for part in parts)]

    @property
    def others(self):
        return [self.generate]


class Groq(Chat):
    """Groq's SDK is OpenAI's, but for what it has not."""

    package = "groq"
    title = "groq"
    route = "groq"
    model = "llama-3.3-70b-versatile"

    def make(self, base, key, retries):
        return groq.Groq(base_url=base, api_key=key, max_retries=retries)

    def stream(self, c):
        chunks = list(c.client.chat.completions.create(model=c.model, messages=ask(c.prompt), stream=True))
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        pieces = [choice.delta.content for choice in choices if choice.delta.content]
        return said(pieces, finish=choices[-1].finish_reason, raw=chunks)

    def tools_streamed(self, c):
        asked = {"model": c.model, "messages": ask(c.prompt), "tools": [TOOL], "stream": True}
        chunks = list(c.client.chat.completions.create(**asked))
        calls = [call.function for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        return said(calls=[[calls[0].name, json.loads("".join(call.arguments for call in calls))]], raw=chunks)

    def objects(self, c):
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        answer = c.client.chat.completions.create(model=c.model, messages=ask(c.prompt), response_format=form)
        return Answer.model_validate_json(answer.choices[0].message.content)

    def message(self, error):
        return error.body["error"]["message"]


SUBJECTS = [Cohere(), Mistral(), Ollama(), Groq()]
