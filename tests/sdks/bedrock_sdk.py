"""boto3's bedrock-runtime: Converse."""

import json

import boto3
from botocore.config import Config
from subject import BEDROCK, GATEWAY, KEY, PARAMETERS, Subject, said

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}}}
SPEC = {"name": "lookup", "description": "looks up", "inputSchema": {"json": PARAMETERS}}
TOOLS = {"tools": [{"toolSpec": SPEC}]}


def ask(c, **more):
    return {"modelId": c.model, "messages": [{"role": "user", "content": [{"text": c.prompt}]}], **more}


def counted(usage):
    cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
    return [usage["inputTokens"] + cached, usage["outputTokens"]]


def of_converse(answer):
    content = answer["output"]["message"]["content"]
    text = "".join(block.get("text", "") for block in content)
    calls = [[block["toolUse"]["name"], block["toolUse"]["input"]] for block in content if "toolUse" in block]
    raw = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    return said(text, calls, answer["stopReason"], counted(answer["usage"]), raw)


class Converse(Subject):
    package = "boto3"
    route = "bedrock"
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    statuses = (400, 403, 404, 429, 500)

    def client(self, side, retries=0, key=None):
        return CLIENTS[side, retries, key]

    def whole(self, c):
        return of_converse(c.client.converse(**ask(c)))

    def stream(self, c):
        events = list(c.client.converse_stream(**ask(c))["stream"])
        pieces = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
        stop = next(event["messageStop"]["stopReason"] for event in events if "messageStop" in event)
        return said(pieces, finish=stop, usage=counted(events[-1]["metadata"]["usage"]), raw=events)

    def tools(self, c):
        return of_converse(c.client.converse(**ask(c, toolConfig=TOOLS)))

    def tools_streamed(self, c):
        events = list(c.client.converse_stream(**ask(c, toolConfig=TOOLS))["stream"])
        starts = [event["contentBlockStart"]["start"]["toolUse"]["name"] for event in events if "contentBlockStart" in event]
        pieces = [event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in events if "contentBlockDelta" in event]
        return said(calls=[[starts[0], json.loads("".join(pieces))]], usage=counted(events[-1]["metadata"]["usage"]), raw=events)

    def tool_answered(self, c):
        asked = ask(c, toolConfig=TOOLS)
        called = c.client.converse(**asked)["output"]["message"]
        used = called["content"][0]["toolUse"]["toolUseId"]
        result = {"toolResult": {"toolUseId": used, "content": [{"text": "42"}]}}
        asked["messages"] += [called, {"role": "user", "content": [result]}]
        return of_converse(c.client.converse(**asked))

    def objects(self, c):
        form = {"type": "json_schema", "structure": {"jsonSchema": {"name": "answer", "schema": json.dumps(SCHEMA)}}}
        answer = c.client.converse(**ask(c, outputConfig={"textFormat": form}))
        return json.loads(of_converse(answer)["text"])

    def embed(self, c):
        asked = {"modelId": "amazon.titan-embed-text-v2:0", "body": json.dumps({"inputText": c.prompt})}
        return [json.loads(c.client.invoke_model(**asked)["body"].read())["embedding"] for _ in range(2)]

    def leave(self, c):
        stream = c.client.converse_stream(**ask(c))["stream"]
        pieces = 0
        for event in stream:
            pieces += "contentBlockDelta" in event
            if pieces == 2:
                stream.close()
                return pieces

    def status(self, error):
        return error.response["ResponseMetadata"]["HTTPStatusCode"]

    def message(self, error):
        return "{Code}: {Message}".format(**error.response["Error"])

    def headers(self, error):
        return error.response["ResponseMetadata"]["HTTPHeaders"]

    def count_tokens(self, c):
        return c.client.count_tokens(modelId=c.model, input={"converse": {"messages": ask(c)["messages"]}})["inputTokens"]

    @property
    def others(self):
        return [self.count_tokens]


class Clients(dict):
    """Made where first asked for: a session is not for two threads."""

    def __missing__(self, wanted):
        side, retries, key = wanted
        at, names = (BEDROCK, ("AKIDDIRECT", "direct-secret", None))
        if side == "gateway":
            # The gateway key as the session token of a made-up access key.
            at, names = (f"{GATEWAY}/bedrock", ("AKIDCALLER", "any", key or KEY))
        access, secret, token = names
        session = boto3.Session(
            aws_access_key_id=access, aws_secret_access_key=secret, aws_session_token=token, region_name="us-east-1"
        )
        again = {"mode": "standard", "total_max_attempts": 1 + retries}
        config = Config(retries=again, max_pool_connections=60, read_timeout=30)
        self[wanted] = session.client("bedrock-runtime", endpoint_url=at, config=config)
        return self[wanted]


CLIENTS = Clients()
SUBJECTS = [Converse()]
