//! What people type into `curl`: `"`, `<` and `>` in a URL. The HTTP parser below refuses them, so they are percent-encoded on their way in, in the
//! request line of HTTP/1 only; and what the parser refuses with an empty answer gets the error body that every other error has.

/// Where in the request line the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Bytes of the method so far.
    Method(u8),
    Target,
    /// Past the target, or no request line at all: nothing is touched until the next request.
    Over,
}

/// Longer methods are none.
const METHOD_BYTES_MAX: u8 = 10;

/// Follows `bytes` through the request line; gives the bytes to use instead, if some had to be encoded.
pub fn encode_target(line: &mut Line, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoded: Option<Vec<u8>> = None;
    for (index, byte) in bytes.iter().enumerate() {
        *line = match (*line, byte) {
            (Line::Method(1..), b' ') => Line::Target,
            (Line::Method(n), b'A'..=b'Z') if n < METHOD_BYTES_MAX => Line::Method(n + 1),
            (Line::Method(_), _) | (Line::Target, b' ' | b'\r' | b'\n') => Line::Over,
            (line @ (Line::Target | Line::Over), _) => line,
        };
        let is_refused = *line == Line::Target && matches!(byte, b'"' | b'<' | b'>');
        match (&mut encoded, is_refused) {
            (None, false) => {}
            (None, true) => {
                let mut start = Vec::with_capacity(bytes.len() + 16);
                start.extend_from_slice(bytes.get(..index).unwrap_or_default());
                start.extend_from_slice(percent(*byte));
                encoded = Some(start);
            }
            (Some(encoded), false) => encoded.push(*byte),
            (Some(encoded), true) => encoded.extend_from_slice(percent(*byte)),
        }
        if encoded.is_none() && *line == Line::Over {
            return None;
        }
    }
    encoded
}

fn percent(byte: u8) -> &'static [u8] {
    match byte {
        b'"' => b"%22",
        b'<' => b"%3C",
        _ => b"%3E",
    }
}

/// The answer to send instead of the HTTP parser's empty refusal; `None` if `head` is no such refusal.
pub fn explained_refusal(head: &[u8]) -> Option<Vec<u8>> {
    let (status, code, message) = match head.get(..12)? {
        b"HTTP/1.1 400" => (
            "400 Bad Request",
            "malformed_request",
            "this is not an HTTP request: its first line or a header cannot be read; percent-encode blanks and control characters in the URL",
        ),
        b"HTTP/1.1 414" => (
            "414 URI Too Long",
            "uri_too_long",
            "the URL is too long; put the filter into fewer words",
        ),
        b"HTTP/1.1 431" => (
            "431 Request Header Fields Too Large",
            "headers_too_large",
            "the request's head is too large: see `http.head_bytes_max` and `http.headers_max`",
        ),
        _ => return None,
    };
    let text = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    if !text.ends_with("\r\n\r\n")
        || !text.contains("\r\ncontent-length: 0\r\n")
        || !text.contains("\r\nconnection: close\r\n")
    {
        return None;
    }
    let body = format!(
        r#"{{"error":{{"code":"{code}","message":"{message}","position":null,"parameter":null}}}}"#
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces in which the bytes come.
    fn check(given: &str, expected: &str) {
        for piece in 1..=given.len() {
            let mut line = Line::Method(0);
            let mut out = Vec::new();
            for bytes in given.as_bytes().chunks(piece) {
                match encode_target(&mut line, bytes) {
                    Some(encoded) => out.extend(encoded),
                    None => out.extend(bytes),
                }
            }
            assert_eq!(
                String::from_utf8(out).unwrap(),
                expected,
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn only_the_target_of_a_request_line_is_encoded() {
        check(
            "GET /logs?q=a:>=5+\"b\"<c HTTP/1.1\r\nx: \"<>\"\r\n\r\n\"",
            "GET /logs?q=a:%3E=5+%22b%22%3Cc HTTP/1.1\r\nx: \"<>\"\r\n\r\n\"",
        );
        check("GET /logs HTTP/1.1\r\n\r\n", "GET /logs HTTP/1.1\r\n\r\n");
        for untouched in [
            "{\"a\": \"<b>\"}",
            "\"GET >",
            " GET >",
            "METHODTOOLONG >",
            "get >",
        ] {
            check(untouched, untouched);
        }
    }

    #[test]
    fn an_empty_refusal_is_explained_and_nothing_else_is_touched() {
        let refusal = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let answer = String::from_utf8(explained_refusal(refusal).unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{head}"
        );
        assert!(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["error"]["message"]
                .is_string()
        );
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nabcde"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"",
        ] {
            assert!(explained_refusal(other).is_none());
        }
    }
}
