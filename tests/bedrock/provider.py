"""Bedrock's runtime on loopback: small forms of its API, with every signature checked by botocore.

Prints its port. What it answers is chosen by the model in the path, and by what is asked: a word `mark-...` of the prompt
stands in the answer, `slowly` has it come slowly. The file `seen` gets a line of JSON for each request: who signed it,
what it was, and whether the signature holds; `GET /seen/WORD` tells when requests with that word came.
"""

import base64
import hashlib
import json
import re
import struct
import sys
import threading
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# Key id -> secret and session token: the gateway's own, the one after it, and a caller's who goes straight here.
KEYS = {
    "AKIDGATEWAY": ("gateway-secret-key-0123456789", "gateway-session-token"),
    "AKIDROTATED": ("rotated-secret-key-0123456789", "rotated-session-token"),
    "AKIDDIRECT": ("direct-secret", None),
}
USAGE = {"inputTokens": 12, "outputTokens": 6, "totalTokens": 61, "cacheReadInputTokens": 40, "cacheWriteInputTokens": 3}
SEEN = threading.Lock()
GATEWAYS = ("AKIDGATEWAY", "AKIDROTATED")
# When a request came, whether the gateway's key signed it, and its body.
CAME = []
WHY = {400: "the request is not valid", 403: "the provider knows no such key", 404: "no such thing", 429: "too many requests"}
NAMES = {
    400: "ValidationException",
    403: "UnrecognizedClientException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
}


def said(text):
    """The answer in its six pieces: JSON where that is wanted, else a sentence with the prompt's mark in it."""
    if '"textFormat"' in text:
        return ['{"answer":', '"kept"', ",", '"sure"', ":true", "}"]
    mark = re.findall(r"mark-[a-z0-9-]+", text)[-1:] or ["this"]
    return ["The ", "record ", "of ", mark[0] + " ", "is ", "kept."]


def called(text):
    """The tool that is called, and with what: the first that is offered, until it has been answered; an answer where it takes one."""
    tools = json.loads(text).get("toolConfig", {}).get("tools", [])
    if not tools or '"toolResult"' in text:
        return None
    pieces = ['{"answer":"kept",', '"sure":true}'] if '"answer":' in json.dumps(tools[0]) else ['{"key":', '"a b"}']
    return tools[0]["toolSpec"]["name"], pieces


def why_not(method, path, headers, body):
    """Why the request's signature does not hold; None where it does."""
    text = headers.get("authorization", "")
    if not text.startswith("AWS4-HMAC-SHA256 "):
        return "no signature"
    parts = dict(part.strip().split("=", 1) for part in text.split(" ", 1)[1].split(","))
    key_id, _, region, service, _ = parts["Credential"].split("/")
    if key_id not in KEYS:
        return "unknown access key"
    secret, token = KEYS[key_id]
    signed = parts["SignedHeaders"].split(";")
    if any(name.startswith("x-amz-") and name not in signed for name in headers):
        return "an x-amz-* header is not signed"
    if token and headers.get("x-amz-security-token") != token:
        return "another session token"
    if (region, service) != ("us-east-1", "bedrock"):
        return f"signed for {region} {service}"
    when = time.mktime(time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")) - time.timezone
    if abs(time.time() - when) > 300:
        return "the signature is old"
    if headers.get("x-amz-content-sha256", hashlib.sha256(body).hexdigest()) != hashlib.sha256(body).hexdigest():
        return "another body"
    request = AWSRequest(method=method, url=f"http://{headers['host']}{path}", data=body)
    for name in signed:
        request.headers[name] = headers[name]
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(key_id, secret), service, region)
    # botocore signs what is there: nothing but what the caller says that it signed.
    canonical = auth.canonical_request(request)
    if canonical.split("\n")[-2] != parts["SignedHeaders"]:
        return "other headers are signed"
    wanted = auth.signature(auth.string_to_sign(request, canonical), request)
    return None if wanted == parts["Signature"] else "the signature is another"


def frame(payload, **headers):
    coded = b""
    for name, value in headers.items():
        name = ":" + name.replace("_", "-")
        coded += struct.pack("B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(coded) + len(payload), len(coded))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    whole = prelude + coded + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def event(kind, value):
    payload = json.dumps(value).encode()
    return frame(payload, event_type=kind, content_type="application/json", message_type="event")


def converse_frames(text):
    pause = 0.4 if "slowly" in text else 0
    tool = called(text)
    yield event("messageStart", {"role": "assistant", "p": "abc"})
    if tool:
        start = {"toolUse": {"toolUseId": "call_1", "name": tool[0]}}
        yield event("contentBlockStart", {"contentBlockIndex": 0, "start": start})
    deltas = [{"toolUse": {"input": piece}} for piece in tool[1]] if tool else [{"text": word} for word in said(text)]
    for delta in deltas:
        time.sleep(pause)
        yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta})
    yield event("contentBlockStop", {"contentBlockIndex": 0})
    yield event("messageStop", {"stopReason": "tool_use" if tool else "end_turn"})
    yield event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 7}})


def converse(text):
    tool = called(text)
    content = {"text": "".join(said(text))}
    if tool:
        content = {"toolUse": {"toolUseId": "call_1", "name": tool[0], "input": json.loads("".join(tool[1]))}}
    message = {"role": "assistant", "content": [content]}
    stop = "tool_use" if tool else "end_turn"
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, "metrics": {"latencyMs": 7}}


def chunk(value):
    return event("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode(), "p": "ab"})


def invoke_frames(text):
    usage = {"input_tokens": 12, "output_tokens": 1, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 3}
    message = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
    yield chunk({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}})
    for word in said(text):
        yield chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    yield chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}})
    metrics = {"inputTokenCount": 12, "outputTokenCount": 6, "invocationLatency": 9, "firstByteLatency": 1}
    yield chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics})


def failing_frames(_):
    yield event("messageStart", {"role": "assistant"})
    yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "The "}})
    payload = json.dumps({"message": "Too many tokens, please wait"}).encode()
    yield frame(payload, exception_type="throttlingException", content_type="application/json", message_type="exception")


def slow_frames(_):
    yield event("messageStart", {"role": "assistant"})
    for _ in range(200):
        yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "word "}})
        time.sleep(0.05)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def whole(self, status, value, **more):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-amzn-RequestId", "0f3c0a5e-0000-4000-8000-000000000001")
        for name, text in more.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, frames):
        self.send_response(200)
        self.send_header("content-type", "application/vnd.amazon.eventstream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("x-amzn-RequestId", "0f3c0a5e-0000-4000-8000-000000000001")
        self.end_headers()
        for data in frames:
            # Not frame by frame: a reader must not take a piece for a frame.
            for piece in (data[:9], data[9:]):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        word = self.path.removeprefix("/seen/")
        with SEEN:
            came = [(at, is_gateways) for at, is_gateways, text in CAME if word in text]
        sides = {"provider": False, "gateway": True}
        self.whole(200, {side: [at for at, mine in came if mine == is_gateways] for side, is_gateways in sides.items()})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        error = why_not("POST", self.path, headers, body)
        text = body.decode(errors="replace")
        key = headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
        with SEEN, open(sys.argv[1], "a") as seen:
            line = {"key": key, "path": self.path, "bytes": len(body), "error": error, "headers": sorted(headers)}
            seen.write(json.dumps(line) + "\n")
            CAME.append((int(time.monotonic() * 1000), key in GATEWAYS, text))
        if error:
            return self.whole(403, {"message": error}, x_amzn_errortype="InvalidSignatureException:http://internal/")
        _, model, operation = self.path.strip("/").split("/")
        model = urllib.parse.unquote(model)
        if model.startswith("fail-"):
            status = {"401": 403}.get(model[5:]) or int(model[5:])
            message = {"message": WHY.get(status, "the provider failed")}
            retry = {"retry_after": "1"} if status == 429 else {}
            return self.whole(status, message, x_amzn_errortype=NAMES[status] + ":http://i/", **retry)
        if operation == "converse":
            return self.whole(200, converse(text))
        if operation == "converse-stream":
            frames = {"fails-later": failing_frames, "slow": slow_frames}.get(model, converse_frames)
            return self.stream(frames(text))
        if operation == "invoke" and "embed" in model:
            vector = {"embedding": [0.25, 0.5, -1.0], "inputTextTokenCount": 3}
            return self.whole(200, vector, x_amzn_bedrock_input_token_count="3")
        if operation == "invoke":
            return self.whole(
                200,
                {"generation": "".join(said(text)), "stop_reason": "stop"},
                x_amzn_bedrock_input_token_count="21",
                x_amzn_bedrock_output_token_count="6",
            )
        if operation == "invoke-with-response-stream":
            return self.stream(invoke_frames(text))
        if operation == "count-tokens":
            return self.whole(200, {"inputTokens": 11})
        return self.whole(404, {"message": "no such thing"}, x_amzn_errortype="UnknownOperationException")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a caller that left is no news


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
