"""A local stand-in of the Hub's HTTP interface: repositories of models in memory, with commits and a token."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

TOKEN = "hf_secret"


class Hub:
    """Repositories by id: `commits` by sha with their files, and `branches`; private ones need the token."""

    def __init__(self):
        self.repos, self.private, self.asked = {}, set(), []

    def create(self, repo, private):
        if repo not in self.repos:
            self.repos[repo] = {"commits": {}, "branches": {}}
            self.private |= {repo} if private else set()
            self.commit(repo, "main", {})

    def commit(self, repo, branch, files):
        known = self.repos[repo]
        before = known["commits"].get(known["branches"].get(branch), {})
        sha = hashlib.sha1(f"{len(known['commits'])} {repo} {branch}".encode()).hexdigest()
        known["commits"][sha], known["branches"][branch] = {**before, **files}, sha
        return sha

    def resolved(self, repo, revision):
        known = self.repos[repo]
        sha = known["branches"].get(revision, revision)
        return sha, known["commits"][sha]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status=200, content=b"", headers=()):
        content = json.dumps(content).encode() if isinstance(content, dict | list) else content
        self.send_response(status)
        for key, value in (("Content-Length", str(len(content))), *dict(headers).items()):
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def may_see(self, repo):
        hub = self.server.hub
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        known = repo in hub.repos and (repo not in hub.private or authorized)
        if not known:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return known

    def do_GET(self):
        hub, path = self.server.hub, unquote(self.path.partition("?")[0])
        hub.asked.append(path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            repo, revision = match[1], match[2] or "main"
            if not self.may_see(repo):
                return
            sha, files = hub.resolved(repo, revision)
            self.answer(200, {"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path):
            _, files = hub.resolved(match[1], match[2])
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self.answer(200, entries)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if not self.may_see(match[1]):
                return
            sha, files = hub.resolved(match[1], match[2])
            if match[3] not in files:
                self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            content = files[match[3]]
            tag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": sha})
        elif path == "/api/whoami-v2":
            self.answer(200, {"name": "someone", "type": "user"})
        else:
            self.answer(404, {"error": path})

    do_HEAD = do_GET

    def do_POST(self):
        hub, path = self.server.hub, unquote(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Unauthorized"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            hub.create(repo, asked.get("private") or asked.get("visibility") == "private")
            self.answer(200, {"url": f"http://{self.headers['Host']}/{repo}", "name": repo})
        elif path.endswith("/validate-yaml"):
            self.answer(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            how = {"uploadMode": "regular", "shouldIgnore": False}
            files = [{"path": file["path"], **how} for file in json.loads(body)["files"]]
            self.answer(200, {"files": files})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            sha = hub.commit(match[1], match[2], {name: base64.b64decode(text) for name, text in files.items()})
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{sha}"
            self.answer(200, {"success": True, "commitOid": sha, "commitUrl": url})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            known = hub.repos[match[1]]
            known["branches"][match[2]] = known["branches"]["main"]
            self.answer(200, {})
        else:
            self.answer(404, {"error": path})


@contextmanager
def serving():
    """Serve a hub at a free port; yields it and its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub, server.daemon_threads = Hub(), True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
