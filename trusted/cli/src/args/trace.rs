//! `--trace`: we have no trace events, and say so of every event asked for by name.
use super::keyval;
use super::stop::{Note, say};

/// The warnings that a value of `--trace` earns; `None` if it asks for the list of events.
pub fn warnings(text: &[u8]) -> Option<Vec<Note>> {
    let options = keyval::options(text, Some("enable"), false);
    let events = options.entries.iter().filter(|(key, _)| key == b"enable");
    let mut notes = Vec::new();
    for (_, event) in events {
        match event.as_slice() {
            b"help" | b"?" => return None,
            event if event.contains(&b'*') => {}
            event => notes.push(Note::Warned(say(&[b"trace event '", event, b"' does not exist"]))),
        }
    }
    Some(notes)
}
