//! Server-sent events: their text, and nothing else.

/// One event. `data` is one line (JSON never holds a raw line break).
pub fn push_event(out: &mut Vec<u8>, id: &str, data: &[u8]) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// An event with a name, for what is not a record.
pub fn push_named_event(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// What keeps an idle connection alive, and tells the server when the client has left.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";
