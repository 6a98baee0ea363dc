"""google-genai, in front of Gemini and of Vertex AI."""

import warnings

from google import genai
from google.oauth2.credentials import Credentials
from subject import PARAMETERS, Answer, Subject, said

DECLARED = {"function_declarations": [{"name": "lookup", "description": "looks up", "parameters_json_schema": PARAMETERS}]}


def of_response(response):
    # The SDK warns of what is no text.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = response.text
    candidate, usage = response.candidates[0], response.usage_metadata
    calls = [[call.name, call.args] for call in response.function_calls or []]
    counted = [usage.prompt_token_count, usage.candidates_token_count]
    return said(text, calls, candidate.finish_reason and candidate.finish_reason.value, counted, response)


class Gemini(Subject):
    package = "google-genai"
    route = "gemini"
    model = "gemini-2.5-flash"
    provider = "Gemini"

    def make(self, base, key, retries):
        return genai.Client(api_key=key, http_options=self.options(base, retries))

    def options(self, base, retries):
        return {"base_url": base, "retry_options": {"attempts": 1 + retries, "initial_delay": 0.1, "jitter": 0}}

    def generate(self, c, **more):
        return c.client.models.generate_content(model=c.model, contents=c.prompt, **more)

    def whole(self, c):
        return of_response(self.generate(c))

    def stream(self, c, **more):
        parts = list(c.client.models.generate_content_stream(model=c.model, contents=c.prompt, **more))
        last = of_response(parts[-1])
        return {**last, "text": [part.text for part in parts], "raw": [part.model_dump(mode="json") for part in parts]}

    def tools(self, c):
        return of_response(self.generate(c, config={"tools": [DECLARED]}))

    def tools_streamed(self, c):
        asked = {"contents": c.prompt, "config": {"tools": [DECLARED]}}
        return of_response(list(c.client.models.generate_content_stream(model=c.model, **asked))[-1])

    def tool_answered(self, c):
        called = self.generate(c, config={"tools": [DECLARED]}).candidates[0].content
        result = genai.types.Part.from_function_response(name="lookup", response={"result": "42"})
        first = genai.types.UserContent(parts=[genai.types.Part(text=c.prompt)])
        contents = [first, called, genai.types.Content(role="user", parts=[result])]
        return of_response(c.client.models.generate_content(model=c.model, contents=contents, config={"tools": [DECLARED]}))

    def objects(self, c):
        form = {"response_mime_type": "application/json", "response_schema": Answer}
        return self.generate(c, config=form).parsed

    def embed(self, c):
        got = c.client.models.embed_content(model="gemini-embedding-001", contents=[c.prompt, "b"])
        return [one.values for one in got.embeddings]

    def leave(self, c):
        stream = c.client.models.generate_content_stream(model=c.model, contents=c.prompt)
        pieces = [next(stream).text for _ in range(2)]
        stream.close()
        return len(pieces)

    def message(self, error):
        return f"{error.status}: {error.message}"

    def count_tokens(self, c):
        return c.client.models.count_tokens(model=c.model, contents=c.prompt).total_tokens

    @property
    def others(self):
        return [self.count_tokens]


class Vertex(Gemini):
    route = "vertex"
    provider = "Vertex AI"

    def make(self, base, key, retries):
        options = self.options(base, retries)
        credentials = Credentials(token=key)
        return genai.Client(vertexai=True, project="p", location="us-central1", credentials=credentials, http_options=options)


SUBJECTS = [Gemini(), Vertex()]
