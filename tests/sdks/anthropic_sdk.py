"""The anthropic SDK, in front of Anthropic, and of other providers through translation."""

import anthropic
from subject import NOT_HERE, PARAMETERS, Answer, Subject, and_translated, said

TOOL = {"name": "lookup", "description": "looks up", "input_schema": PARAMETERS}


def ask(c, **more):
    return {"model": c.model, "max_tokens": 100, "messages": [{"role": "user", "content": c.prompt}], **more}


def of_message(message):
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [[block.name, block.input] for block in message.content if block.type == "tool_use"]
    return said(text, calls, message.stop_reason, counted(message.usage), message)


def counted(usage):
    """All that went in: what was read from and written to the cache is beside the rest."""
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return [usage.input_tokens + cached, usage.output_tokens]


class Messages(Subject):
    package = "anthropic"
    route = "anthropic"
    model = "claude-sonnet-4-6"
    statuses = (400, 401, 404, 429, 500, 529)
    lacks = {"embeddings": NOT_HERE}

    def make(self, base, key, retries):
        return anthropic.Anthropic(base_url=base, api_key=key, max_retries=retries)

    def whole(self, c):
        return of_message(c.client.messages.create(**ask(c)))

    def stream(self, c):
        with c.client.messages.stream(**ask(c)) as stream:
            events = list(stream)
            got = of_message(stream.get_final_message())
        pieces = [event.text for event in events if event.type == "text"]
        return {**got, "text": pieces, "raw": [event.model_dump(mode="json") for event in events]}

    def tools(self, c):
        return of_message(c.client.messages.create(**ask(c, tools=[TOOL])))

    def tools_streamed(self, c):
        with c.client.messages.stream(**ask(c, tools=[TOOL])) as stream:
            return of_message(stream.get_final_message())

    def tool_answered(self, c):
        asked = ask(c, tools=[TOOL])
        called = c.client.messages.create(**asked).content
        result = {"type": "tool_result", "tool_use_id": called[-1].id, "content": "42"}
        # As the SDK gave it, it goes back.
        asked["messages"] += [{"role": "assistant", "content": called}, {"role": "user", "content": [result]}]
        return of_message(c.client.messages.create(**asked))

    def objects(self, c):
        return c.client.messages.parse(**ask(c, output_format=Answer)).parsed_output

    def leave(self, c):
        stream = c.client.messages.create(stream=True, **ask(c))
        pieces = 0
        for event in stream:
            pieces += event.type == "content_block_delta"
            if pieces == 2:
                stream.close()
                return pieces

    def message(self, error):
        return error.body["error"]["message"]

    def count_tokens(self, c):
        counted = c.client.messages.count_tokens(model=c.model, messages=ask(c)["messages"])
        return counted.input_tokens

    @property
    def others(self):
        return [] if self.translated else [self.count_tokens]


SUBJECTS = [*and_translated(Messages())]
