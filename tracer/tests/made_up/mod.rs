//! A recording of lines that no kernel wrote: every way in which an endpoint can be named and a name
//! can attack whoever shows it, in one session.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Value, json};
use tracer::{
    catalogue::Catalogue,
    record::{Record, Writer},
};

/// Ends elements and cells, repaints a terminal, turns text around, hides in plain sight.
const ATTACK: &str = "</script><img src=x onerror=alert(1)>\u{1b}[2J\u{202e}|`\u{200b}\n# PROVEN";

/// Writes it to `path`: the recording `base` with more lines before its end.
pub(crate) fn write(base: &Path, path: &Path) {
    let text = fs::read_to_string(base).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines[0]["schema"] = json!(tracer::record::schema::SCHEMA);
    let catalogue = Catalogue::embedded();
    lines[0]["credentials"] = json!({ "sources": catalogue.credential_sources, "places": [],
        "gaps": [{ "source": ATTACK, "why": ATTACK }] });
    lines[0]["mcp_servers"] = json!(catalogue.mcp_servers);
    let pipe = |inode: u64| json!({ "kind": "pipe", "inode": inode, "device": "0:15" });
    for line in lines.iter_mut().filter(|line| line["type"] == "exec") {
        line["environment"] = json!(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ATTACK]);
    }
    // The last process talks to the first over pipes, and is called like a server.
    let last = lines.iter_mut().rfind(|line| line["type"] == "exec").unwrap();
    last["stdio"] = json!({ "input": pipe(1), "output": pipe(2) });
    last["argv"]["args"] = json!(["npx", "@upstash/context7-mcp", ATTACK]);
    let first = |of: &str| lines.iter().find(|line| line["type"] == of).unwrap();
    let root = first("root")["process"].clone();
    let child = first("fork")["child"].clone();
    let t_ns = first("fork")["t_ns"].as_u64().unwrap();
    let end = lines.pop().unwrap();
    let mut session = Session { lines, t_ns, cookies: 0 };
    session.tell(&root, &child);
    session.lines.push(end);
    let mut writer = Writer::new(Box::new(fs::File::create(path).unwrap()));
    for line in session.lines {
        let record: Record = serde_json::from_value(line).unwrap();
        writer.write(&record).unwrap();
    }
    writer.flush().unwrap();
}

fn endpoint(text: &str) -> Value {
    let address: SocketAddr = text.parse().unwrap();
    json!({ "address": address.ip(), "port": address.port() })
}

struct Session {
    lines: Vec<Value>,
    t_ns: u64,
    cookies: u64,
}

impl Session {
    fn line(&mut self, of: &str, process: &Value, more: Value) {
        self.t_ns += 1_000_000;
        let mut line = json!({ "type": of, "t_ns": self.t_ns, "process": process, "thread": 1 });
        for (name, value) in more.as_object().unwrap() {
            line[name] = value.clone();
        }
        self.lines.push(line);
    }

    /// A question over UDP and its answer.
    fn ask(&mut self, process: &Value, name: &str, of: &str, code: &str, data: &[&str]) {
        self.cookies += 1;
        let (server, cookie) = (endpoint("127.0.0.53:53"), self.cookies);
        self.line(
            "datagram",
            process,
            json!({ "cookie": cookie, "protocol": 17, "destination": server, "net_ns_inum": 1,
                    "via": "connect" }),
        );
        let records: Vec<Value> = data
            .iter()
            .map(|data| json!({ "name": name, "of": of, "ttl_s": 60, "data": data }))
            .collect();
        let id = self.cookies;
        let question = json!({ "question": { "id": id, "name": name, "of": of } });
        let answer = json!({ "answer": {
            "id": id, "name": name, "of": of, "code": code, "records": records } });
        for message in [question, answer] {
            let dns = json!({ "cookie": cookie, "server": server, "message": message });
            self.line("dns", process, dns);
        }
        let exchange = json!({ "cookie": cookie, "destination": server, "sent_packets": 1,
            "sent_bytes": 40, "received_packets": 1, "received_bytes": 80 });
        self.line("exchange", process, exchange);
    }

    /// A connection, what was sent over it first, and its end.
    fn connect(&mut self, process: &Value, to: &str, outcome: Value, first: Option<Value>) {
        self.cookies += 1;
        let to = endpoint(to);
        let (cookie, id) = (self.cookies, 1_000 + self.cookies);
        let connect = json!({ "connection": id, "cookie": cookie, "destination": to,
            "net_ns_inum": 1 });
        self.line("connect", process, connect);
        let established = outcome == "established";
        let result = json!({ "connection": id, "outcome": outcome, "connect_ns": 80_000,
            "source": endpoint("127.0.0.1:40000") });
        self.line("connect-result", process, result);
        if let Some(what) = first {
            let opening = json!({ "cookie": cookie, "connection": id, "destination": to,
                "what": what });
            self.line("opening", process, opening);
        }
        if established {
            let close = json!({ "connection": id, "sent_bytes": 2_000, "received_bytes": 9_000,
                "duration_ns": 500_000 });
            self.line("close", process, close);
        }
    }

    fn tell(&mut self, root: &Value, child: &Value) {
        let tls = |sni: &str| {
            Some(json!({ "tls": { "sni": sni, "alpn": ["h2"], "client_random": "00ff" } }))
        };
        let refused = json!({ "failed": { "errno": 111, "name": "ECONNREFUSED" } });
        let bedrock = "bedrock-runtime.us-east-1.amazonaws.com";
        self.ask(root, bedrock, "A", "NOERROR", &["127.10.0.5", "127.10.0.6"]);
        self.ask(root, bedrock, "AAAA", "NOERROR", &[]);
        for (process, source) in [(root, "shared files"), (child, ATTACK)] {
            let file = json!({ "after_ns": self.t_ns, "pid": 0, "source": source,
                "access": "opened", "file": null, "path": format!("/root/.aws/{ATTACK}") });
            self.line("credential-file", process, file);
        }
        for address in ["127.10.0.5:443", "127.10.0.6:443", "127.10.0.6:443"] {
            self.connect(root, address, json!("established"), tls(bedrock));
        }
        // A name by DNS alone, refused, and one that does not exist.
        self.ask(child, "sts.amazonaws.com", "A", "NOERROR", &["127.10.0.7"]);
        self.connect(child, "127.10.0.7:443", refused.clone(), None);
        self.ask(child, "no.such.example", "A", "NXDOMAIN", &[]);
        // Two names of one address, one of which is sent.
        self.ask(root, "api.statsig.com", "A", "NOERROR", &["127.10.0.8"]);
        self.ask(root, "front.example", "A", "NOERROR", &["127.10.0.8"]);
        self.connect(root, "127.10.0.8:443", json!("established"), tls("front.example"));
        self.connect(root, "127.10.0.8:443", refused, None);
        // Sources that disagree, and a hidden name.
        self.connect(root, "127.10.0.5:443", json!("established"), tls("other.example"));
        let hidden = json!({ "tls": { "sni": "public.example", "encrypted_hello": true,
            "client_random": "01" } });
        self.connect(root, "127.10.0.9:443", json!("established"), Some(hidden));
        // Plain HTTP to the metadata service, and an address without any name.
        let http = json!({ "http": { "method": "PUT", "host": "169.254.169.254" } });
        self.connect(child, "169.254.169.254:80", json!("established"), Some(http));
        self.connect(child, "[2001:db8::1]:8443", json!("abandoned"), None);
        // QUIC, and datagrams that were never counted.
        self.cookies += 1;
        let (cookie, to) = (self.cookies, endpoint("127.10.0.5:443"));
        let datagram = json!({ "cookie": cookie, "protocol": 17, "destination": to,
            "net_ns_inum": 1, "via": "send" });
        self.line("datagram", root, datagram);
        let quic = json!({ "tls": { "sni": bedrock, "client_random": "02", "quic": true } });
        let opening = json!({ "cookie": cookie, "destination": to, "what": quic });
        self.line("opening", root, opening);
        let exchange = json!({ "cookie": cookie, "destination": to, "sent_packets": 4,
            "sent_bytes": 4_800, "received_packets": 9, "received_bytes": 10_000 });
        self.line("exchange", root, exchange);
        let datagram = json!({ "cookie": cookie + 1, "protocol": 136, "destination": null,
            "net_ns_inum": 1, "via": "connect" });
        self.line("datagram", child, datagram);
        self.cookies += 1;
        let resolved = json!({ "name": "localhost", "addresses": ["::1", "127.0.0.1"] });
        self.line("resolved", child, resolved);
        let failed = json!({ "name": ATTACK, "addresses": [], "error": -2 });
        self.line("resolved", child, failed);
        // What is not covered.
        let packet = json!({ "family": 17, "socket-type": 3, "protocol": 768 });
        self.line("odd-socket", child, packet);
        let moved = json!({ "to_cgroup_id": 7, "to_path": format!("/user{ATTACK}") });
        self.line("cgroup-move", child, moved);
        // Names that attack.
        self.ask(child, ATTACK, ATTACK, ATTACK, &[ATTACK, "127.10.0.66"]);
        self.connect(child, "127.10.0.66:443", json!("established"), tls(ATTACK));
        let http = json!({ "http": { "method": "GET", "host": ATTACK } });
        self.connect(child, "127.10.0.67:80", json!("established"), Some(http));
        let unread = json!({ "unread": { "why": ATTACK } });
        self.connect(child, "127.10.0.68:443", json!("established"), Some(unread));
        let malformed = json!({ "cookie": 1, "server": null,
            "message": { "malformed": { "why": ATTACK } } });
        self.line("dns", child, malformed);
        let file = json!({ "after_ns": self.t_ns, "pid": 0, "source": ATTACK, "access": "changed",
            "file": null, "path": "/root/.aws/config" });
        self.line("credential-file", &Value::Null, file);
        // A server over HTTP.
        let mcp = "api.githubcopilot.com";
        self.ask(root, mcp, "A", "NOERROR", &["127.10.0.10"]);
        self.connect(root, "127.10.0.10:443", json!("established"), tls(mcp));
        self.calls(root, child);
    }

    /// Calls, in all that can become of them, and what was not read.
    fn calls(&mut self, root: &Value, child: &Value) {
        let bedrock = "https://bedrock-runtime.us-east-1.amazonaws.com/model";
        let invoke = format!("{bedrock}/anthropic.claude-x/invoke-with-response-stream");
        let mcp = "https://api.githubcopilot.com/mcp/".to_owned();
        let github =
            "https://api.githubcopilot.com/.well-known/oauth-protected-resource".to_owned();
        let attack = format!("https://other.example/{ATTACK}");
        let (complete, upgraded) = (json!("complete"), json!({ "upgraded": { "to": ATTACK } }));
        let partial = json!({ "partial": { "why": ATTACK } });
        let aborted = json!({ "aborted": { "why": "the connection ended" } });
        let exact = json!({ "id": 1_003, "by": "exact" });
        let inferred = json!({ "id": 1_004, "by": "inferred" });
        for (process, method, url, status, outcome, connection) in [
            (root, "POST", invoke.clone(), Some(200), complete.clone(), exact.clone()),
            (root, "POST", invoke, Some(429), complete.clone(), exact),
            (root, "POST", mcp, Some(202), complete.clone(), inferred),
            (root, "GET", github, Some(404), complete, Value::Null),
            (child, ATTACK, attack.clone(), None, partial, Value::Null),
            (child, "GET", attack.clone(), Some(101), upgraded, Value::Null),
            (child, "GET", attack, Some(200), aborted, Value::Null),
        ] {
            self.cookies += 1;
            let mut call = json!({ "method": method, "url": url, "http_version": "1.1",
                "request_headers": { "user-agent": ATTACK, "x-api-key": "REDACTED" },
                "response_headers": { "content-type": "text/event-stream" },
                "has_authorization": true, "has_aws_sig": url.starts_with(bedrock),
                "request_id": format!("id-{}", self.cookies), "ttfb_ms": 12.5, "total_ms": 480.25,
                "request_bytes": 900, "response_bytes": 12_000, "session": self.cookies,
                "model": "claude-x", "outcome": outcome });
            if let Some(status) = status {
                call["status"] = json!(status);
            }
            if !connection.is_null() {
                call["connection"] = connection;
            }
            self.line("call", process, call);
        }
        let gap = json!({ "session": 99, "why": ATTACK });
        self.line("call-gap", child, gap);
        let file = json!({ "device": "8:1", "inode": 77 });
        let late = json!({ "from": { "t_ns": self.t_ns } });
        let unreadable = json!({ "unreadable": { "library": "rustls" } });
        for reading in [json!("complete"), late, unreadable, json!({ "failed": { "why": ATTACK } })]
        {
            let library =
                json!({ "path": format!("/opt/{ATTACK}"), "file": file, "reading": reading });
            self.line("tls-library", child, library);
        }
    }
}
