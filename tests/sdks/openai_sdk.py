"""The openai SDK: chat, Responses, Azure; chat in front of other providers too, through translation."""

import json

import openai
from subject import PARAMETERS, TOOL, Answer, Subject, and_translated, said


def ask(prompt):
    return [{"role": "user", "content": prompt}]


def of_completion(completion):
    choice = completion.choices[0]
    calls = [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls or []]
    usage = completion.usage and [completion.usage.prompt_tokens, completion.usage.completion_tokens]
    return said(choice.message.content, calls, choice.finish_reason, usage, completion)


class Chat(Subject):
    package = "openai"
    route = "openai"
    model = "gpt-4o-mini"

    def make(self, base, key, retries):
        return openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=retries)

    def whole(self, c):
        return of_completion(c.client.chat.completions.create(model=c.model, messages=ask(c.prompt)))

    def stream(self, c):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(c.client.chat.completions.create(model=c.model, messages=ask(c.prompt), **options))
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        usage = [chunk.usage for chunk in chunks if chunk.usage]
        assert len(usage) == 1
        usage = [usage[0].prompt_tokens, usage[0].completion_tokens]
        pieces = [choice.delta.content for choice in choices if choice.delta.content]
        return said(pieces, finish=choices[-1].finish_reason, usage=usage, raw=chunks)

    def tools(self, c):
        return of_completion(c.client.chat.completions.create(model=c.model, messages=ask(c.prompt), tools=[TOOL]))

    def tools_streamed(self, c):
        with c.client.chat.completions.stream(model=c.model, messages=ask(c.prompt), tools=[TOOL]) as stream:
            stream.until_done()
            return of_completion(stream.get_final_completion())

    def tool_answered(self, c):
        completions = c.client.chat.completions
        called = completions.create(model=c.model, messages=ask(c.prompt), tools=[TOOL]).choices[0].message
        # As the SDK gave it, it goes back.
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "42"}
        return of_completion(completions.create(model=c.model, messages=[*ask(c.prompt), called, result], tools=[TOOL]))

    def objects(self, c):
        asked = {"model": c.model, "messages": ask(c.prompt), "response_format": Answer}
        whole = c.client.chat.completions.parse(**asked).choices[0].message.parsed
        with c.client.chat.completions.stream(**asked) as stream:
            stream.until_done()
            assert stream.get_final_completion().choices[0].message.parsed == whole
        return whole

    def embed(self, c):
        got = c.client.embeddings.create(model="text-embedding-3-small", input=[c.prompt, "b"])
        return [one.embedding for one in got.data]

    def leave(self, c):
        stream = c.client.chat.completions.create(model=c.model, messages=ask(c.prompt), stream=True)
        pieces = 0
        for chunk in stream:
            pieces += bool(chunk.choices[0].delta.content)
            if pieces == 2:
                stream.close()
                return pieces

    def message(self, error):
        return error.body["message"]


class Responses(Chat):
    title = "openai, Responses"
    lacks = {"embeddings": "as above", "wrong gateway key": "as above"}

    def of(self, response):
        calls = [[item.name, json.loads(item.arguments)] for item in response.output if item.type == "function_call"]
        usage = [response.usage.input_tokens, response.usage.output_tokens]
        return said(response.output_text, calls, response.status, usage, response)

    def whole(self, c):
        return self.of(c.client.responses.create(model=c.model, input=c.prompt))

    def stream(self, c):
        events = list(c.client.responses.create(model=c.model, input=c.prompt, stream=True))
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        return {**self.of(events[-1].response), "text": pieces, "raw": [event.model_dump(mode="json") for event in events]}

    def tools(self, c):
        return self.of(c.client.responses.create(model=c.model, input=c.prompt, tools=[self.tool()]))

    def tools_streamed(self, c):
        with c.client.responses.stream(model=c.model, input=c.prompt, tools=[self.tool()]) as stream:
            stream.until_done()
            return self.of(stream.get_final_response())

    def tool_answered(self, c):
        called = c.client.responses.create(model=c.model, input=c.prompt, tools=[self.tool()]).output[0]
        result = {"type": "function_call_output", "call_id": called.call_id, "output": "42"}
        given = [*ask(c.prompt), called, result]
        return self.of(c.client.responses.create(model=c.model, input=given, tools=[self.tool()]))

    def tool(self):
        return {"type": "function", "name": "lookup", "parameters": PARAMETERS, "strict": True}

    def objects(self, c):
        return c.client.responses.parse(model=c.model, input=c.prompt, text_format=Answer).output_parsed

    def leave(self, c):
        stream = c.client.responses.create(model=c.model, input=c.prompt, stream=True)
        pieces = 0
        for event in stream:
            pieces += event.type == "response.output_text.delta"
            if pieces == 2:
                stream.close()
                return pieces


class Azure(Chat):
    title = "openai, Azure"
    route = "azure"

    def make(self, base, key, retries):
        return openai.AzureOpenAI(azure_endpoint=base, api_key=key, api_version="2024-10-21", max_retries=retries)


SUBJECTS = [*and_translated(Chat()), Responses(), Azure()]
