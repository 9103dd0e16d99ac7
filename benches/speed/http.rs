//! Just enough HTTP/1.1 over a unix socket for the floor: one connection kept open, one request at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

/// A connection that is kept.
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(socket: &str) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).expect("the daemon listens")))
    }

    /// One request with a JSON body; gives the answer's.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let bytes = self.send(method, path, "Content-Type: application/json\r\n", body.as_bytes());
        let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(answer["type"] != "error", "{method} {path}: {answer}");
        answer
    }

    /// A request that starts an operation, and the end of that.
    pub(crate) fn done(&mut self, method: &str, path: &str, body: &Value) {
        let answer = self.call(method, path, body);
        let operation = answer["operation"].as_str().expect("an operation");
        let ended = self.call("GET", &format!("{operation}/wait"), &Value::Null);
        assert_eq!(ended["metadata"]["status_code"], 200, "{method} {path}: {ended}");
    }

    /// One request as it is; gives the answer's body.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: incus\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sends");
        let (mut length, mut chunked, mut line) = (0, false, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("reads");
            let lower = line.trim_end().to_ascii_lowercase();
            match lower.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().expect("a number"),
                Some(("transfer-encoding", "chunked")) => chunked = true,
                _ if lower.is_empty() => break,
                _ => {}
            }
        }
        let mut bytes = Vec::new();
        if !chunked {
            bytes.resize(length, 0);
            self.0.read_exact(&mut bytes).expect("reads");
            return bytes;
        }
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("reads");
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
            let from = bytes.len();
            bytes.resize(from + size, 0);
            self.0.read_exact(&mut bytes[from..]).expect("reads");
            self.0.read_line(&mut line).expect("reads");
            if size == 0 {
                return bytes;
            }
        }
    }
}
