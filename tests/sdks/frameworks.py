"""Frameworks over the SDKs: LiteLLM as a client, LangChain, Pydantic AI."""

import asyncio
import json
import os
import threading

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import anthropic
import litellm
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai_sdk import ask, of_completion
from pydantic_ai import Agent, Embedder, NativeOutput, ToolOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from subject import NOT_HERE, TOOL, Answer, Subject, and_translated, said

litellm.suppress_debug_info = True


def lookup(key: str) -> str:
    """Looks up."""
    return f"{key} is 42"


class LiteLlm(Subject):
    package = "litellm"
    may_read_on = True

    def __init__(self, dialect, model, provider):
        self.dialect = self.route = dialect
        self.model, self.provider = model, provider
        self.lacks = {} if dialect == "openai" else {"embeddings": "not at this provider"}

    @property
    def title(self):
        return f"litellm ({self.dialect})"

    def make(self, base, key, retries):
        base = f"{base}/v1" if self.dialect == "openai" else base
        again = "max_retries" if self.dialect == "openai" else "num_retries"
        return {"api_base": base, "api_key": key, again: retries}

    def complete(self, c, **more):
        asked = {"messages": ask(c.prompt), **c.client, **more}
        return litellm.completion(model=f"{self.dialect}/{c.model}", **asked)

    def whole(self, c):
        return of_completion(self.complete(c))

    def stream(self, c):
        chunks = list(self.complete(c, stream=True))
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
        return said(pieces, finish=chunks[-1].choices[0].finish_reason, raw=chunks)

    def tools(self, c):
        return of_completion(self.complete(c, tools=[TOOL]))

    def tools_streamed(self, c):
        chunks = list(self.complete(c, tools=[TOOL], stream=True))
        # No count was asked for.
        return {**of_completion(litellm.stream_chunk_builder(chunks)), "usage": None}

    def tool_answered(self, c):
        called = self.complete(c, tools=[TOOL]).choices[0].message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "42"}
        return of_completion(self.complete(c, messages=[*ask(c.prompt), called, result], tools=[TOOL]))

    def objects(self, c):
        return Answer.model_validate_json(self.complete(c, response_format=Answer).choices[0].message.content)

    def embed(self, c):
        got = litellm.embedding(model="openai/text-embedding-3-small", input=[c.prompt, "b"], **c.client)
        return [one["embedding"] for one in got.data]

    def leave(self, c):
        stream = self.complete(c, stream=True)
        pieces = [next(stream) for _ in range(2)]
        # It cannot be closed: it is let go.
        del stream
        return len(pieces)

    def message(self, error):
        return error.message

    def headers(self, error):
        return error.litellm_response_headers


class LangChain(Subject):
    def whole(self, c):
        return self.of(self.at(c).invoke(c.prompt))

    def at(self, c):
        return self.chat(c.model, **c.client)

    def of(self, message):
        text = message.text if isinstance(message.text, str) else message.text()
        calls = [[call["name"], call["args"]] for call in message.tool_calls]
        usage = message.usage_metadata
        # Of a stream it may know no count of the prompt, which it calls 0.
        usage = usage and [usage["input_tokens"] or None, usage["output_tokens"]]
        told = message.response_metadata
        finish = told.get("finish_reason") or told.get("stop_reason")
        return said(text, calls, finish, usage, message)

    def stream(self, c):
        pieces = list(self.at(c).stream(c.prompt))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        return {**self.of(whole), "text": [self.of(piece)["text"] for piece in pieces]}

    def tools(self, c):
        return self.of(self.at(c).bind_tools([lookup]).invoke(c.prompt))

    def tools_streamed(self, c):
        pieces = list(self.at(c).bind_tools([lookup]).stream(c.prompt))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        return self.of(whole)

    def tool_answered(self, c):
        model = self.at(c).bind_tools([lookup])
        called = model.invoke(c.prompt)
        result = ToolMessage("42", tool_call_id=called.tool_calls[0]["id"])
        return self.of(model.invoke([("user", c.prompt), called, result]))

    def objects(self, c):
        return self.at(c).with_structured_output(Answer, method="json_schema").invoke(c.prompt)

    def leave(self, c):
        stream = self.at(c).stream(c.prompt)
        pieces = 0
        for piece in stream:
            pieces += bool(self.of(piece)["text"])
            if pieces == 2:
                stream.close()
                return pieces


class LangChainOpenAi(LangChain):
    package = "langchain-openai"
    route = "openai"
    model = "gpt-4o-mini"
    provider = "OpenAI"

    def make(self, base, key, retries):
        return {"base_url": f"{base}/v1", "api_key": key, "max_retries": retries}

    def chat(self, model, **more):
        return ChatOpenAI(model=model, stream_usage=True, **more)

    def embed(self, c):
        model = OpenAIEmbeddings(check_embedding_ctx_length=False, model="text-embedding-3-small", **c.client)
        return model.embed_documents([c.prompt, "b"])


class LangChainAnthropic(LangChain):
    package = "langchain-anthropic"
    route = "anthropic"
    model = "claude-sonnet-4-6"
    provider = "Anthropic"
    lacks = {"embeddings": NOT_HERE}

    def make(self, base, key, retries):
        return {"base_url": base, "api_key": key, "max_retries": retries}

    def chat(self, model, **more):
        return ChatAnthropic(model=model, **more)


class Loop:
    """One loop for all that is asynchronous, as a server has."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


LOOP = Loop()


class PydanticAi(Subject):
    package = "pydantic-ai-slim"

    def agent(self, c, **more):
        return Agent(self.model_of(c), **more)

    def of(self, result, text):
        reply = result.all_messages()[-1]
        usage = [reply.usage.input_tokens, reply.usage.output_tokens]
        calls = [[part.tool_name, part.args_as_dict()] for message in result.all_messages() for part in message.parts if part.part_kind == "tool-call"]
        return said(text, calls, reply.finish_reason, usage)

    def whole(self, c):
        result = LOOP.run(self.agent(c).run(c.prompt))
        return self.of(result, result.output)

    def stream(self, c):
        async def run():
            async with self.agent(c).run_stream(c.prompt) as result:
                pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
            return self.of(result, pieces)

        return LOOP.run(run())

    def tools(self, c):
        """It answers the call itself, and asks on."""
        agent = self.agent(c, tools=[lookup])
        result = LOOP.run(agent.run(c.prompt))
        return self.of(result, result.output)

    def tools_streamed(self, c):
        async def run():
            async with self.agent(c, tools=[lookup]).run_stream(c.prompt) as result:
                return self.of(result, await result.get_output())

        return LOOP.run(run())

    tool_answered = tools

    def objects(self, c):
        # Of a model that it does not know for it, it asks for the call of a tool.
        form = NativeOutput if self.model_of(c).profile.get("supports_json_schema_output") else ToolOutput
        return LOOP.run(self.agent(c, output_type=form(Answer)).run(c.prompt)).output

    def leave(self, c):
        """As a server does whose own caller has gone: the task is cancelled."""

        async def run():
            pieces = 0

            async def read():
                nonlocal pieces
                async with self.agent(c).run_stream(c.prompt) as result:
                    async for _ in result.stream_text(delta=True, debounce_by=None):
                        pieces += 1
                        if pieces == 2:
                            task.cancel()

            task = asyncio.ensure_future(read())
            try:
                await task
            except asyncio.CancelledError:
                return pieces

        return LOOP.run(run())

    def headers(self, error):
        return super().headers(error.__cause__)

    def message(self, error):
        return f"{error.model_name}: {error.body}"


class PydanticAiOpenAi(PydanticAi):
    title = "pydantic-ai (openai)"
    route = "openai"
    model = "gpt-4o-mini"
    provider = "OpenAI"

    def make(self, base, key, retries):
        return OpenAIProvider(openai_client=openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=retries))

    def model_of(self, c):
        return OpenAIChatModel(c.model, provider=c.client)

    def embed(self, c):
        embedder = Embedder(OpenAIEmbeddingModel("text-embedding-3-small", provider=c.client))
        return [list(one) for one in LOOP.run(embedder.embed_documents([c.prompt, "b"])).embeddings]


class PydanticAiAnthropic(PydanticAi):
    title = "pydantic-ai (anthropic)"
    route = "anthropic"
    model = "claude-sonnet-4-6"
    provider = "Anthropic"
    lacks = {"embeddings": NOT_HERE}

    def make(self, base, key, retries):
        return AnthropicProvider(anthropic_client=anthropic.AsyncAnthropic(base_url=base, api_key=key, max_retries=retries))

    def model_of(self, c):
        return AnthropicModel(c.model, provider=c.client)


OF_DIALECTS = [
    LiteLlm("openai", "gpt-4o-mini", "OpenAI"),
    LiteLlm("anthropic", "claude-sonnet-4-6", "Anthropic"),
    LangChainOpenAi(),
    LangChainAnthropic(),
    PydanticAiOpenAi(),
    PydanticAiAnthropic(),
]
SUBJECTS = [subject for own in OF_DIALECTS for subject in and_translated(own)]
