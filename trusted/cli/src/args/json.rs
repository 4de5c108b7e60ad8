//! A reader for the JSON that a user writes: qemu's dialect, with its sentences about mistakes.
mod lex;

use self::lex::{Token, What, tokens};
use super::stop::Complaint;
use crate::profile::Profile;

/// How deep lists and dictionaries may be nested.
const DEPTH_MAX: usize = 1024;

/// A JSON value; dictionaries keep the order of writing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above the signed range.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string, as bytes.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A dictionary.
    Dict(Vec<(Vec<u8>, Value)>),
}

impl Value {
    /// The bytes of a string.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads exactly one JSON value.
pub fn parse(text: &[u8], profile: &Profile) -> Result<Value, Complaint> {
    let newer = profile.json_error_position();
    let all = tokens(text);
    let chunk = if newer { all.len() } else { first_chunk(&all)? };
    let mut parser = Parser { tokens: &all[..chunk], at: 0, newer, open: Vec::new() };
    let value = parser.document()?;
    if all.get(parser.at).is_some_and(|next| next.what != What::End) {
        return Err(Complaint::new(&[b"Expecting at most one JSON value"]));
    }
    Ok(value)
}

/// How many tokens belong to the first value by counting brackets; errors of spelling come first.
fn first_chunk(all: &[Token]) -> Result<usize, Complaint> {
    let (mut braces, mut brackets) = (0i64, 0i64);
    for (at, token) in all.iter().enumerate() {
        match &token.what {
            What::Mark(b'{') => braces += 1,
            What::Mark(b'}') => braces -= 1,
            What::Mark(b'[') => brackets += 1,
            What::Mark(b']') => brackets -= 1,
            What::Stray(_) => return Err(stray(token, false)),
            _ => {}
        }
        if braces + brackets > DEPTH_MAX as i64 {
            return Err(too_deep());
        }
        let open = (braces > 0 || brackets > 0) && braces >= 0 && brackets >= 0;
        if !open {
            return Ok(at + 1);
        }
    }
    Ok(all.len())
}

/// A list or dictionary that is not closed yet.
enum Open {
    List(Vec<Value>),
    Dict(Vec<(Vec<u8>, Value)>, Vec<u8>),
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    newer: bool,
    open: Vec<Open>,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Result<&'a Token, Complaint> {
        let token = self.peek()?;
        self.at += 1;
        match &token.what {
            What::Stray(_) => Err(stray(token, self.newer)),
            What::End => Err(self.fail(token, b"premature EOI", b"premature end of input")),
            _ => Ok(token),
        }
    }

    fn peek(&self) -> Result<&'a Token, Complaint> {
        let eoi = || Complaint::new(&[b"JSON parse error, premature EOI"]);
        self.tokens.get(self.at).ok_or_else(eoi)
    }

    fn fail(&self, token: &Token, older: &[u8], newer: &[u8]) -> Complaint {
        fail(token, self.newer, if self.newer { newer } else { older })
    }

    fn document(&mut self) -> Result<Value, Complaint> {
        if self.peek()?.what == What::End {
            return Err(Complaint::new(&[b"Expecting a JSON value"]));
        }
        loop {
            let mut done = self.begin()?;
            while let Some(value) = done {
                match self.open.pop() {
                    None => return Ok(value),
                    Some(open) => done = self.attach(open, value)?,
                }
            }
        }
    }

    /// Reads a value, or opens a list or dictionary that is not empty.
    fn begin(&mut self) -> Result<Option<Value>, Complaint> {
        let token = self.next()?;
        match &token.what {
            What::Mark(b'{' | b'[') if self.open.len() == DEPTH_MAX => Err(too_deep()),
            What::Mark(b'{') if self.closes(b'}') => Ok(Some(Value::Dict(Vec::new()))),
            What::Mark(b'[') if self.closes(b']') => Ok(Some(Value::List(Vec::new()))),
            What::Mark(b'{') => {
                let key = self.key()?;
                self.open.push(Open::Dict(Vec::new(), key));
                Ok(None)
            }
            What::Mark(b'[') => {
                self.open.push(Open::List(Vec::new()));
                Ok(None)
            }
            _ => self.scalar(token).map(Some),
        }
    }

    fn scalar(&self, token: &Token) -> Result<Value, Complaint> {
        match &token.what {
            What::Word(word) => match word.as_slice() {
                b"true" => Ok(Value::Bool(true)),
                b"false" => Ok(Value::Bool(false)),
                b"null" => Ok(Value::Null),
                _ => Err(fail(token, self.newer, &[b"invalid keyword '", word.as_slice(), b"'"].concat())),
            },
            What::Number(number) => Ok(number.clone()),
            What::Text(raw) => lex::unescape(raw).map(Value::Text).map_err(|e| fail(token, self.newer, &e)),
            _ => Err(self.fail(token, b"expecting value", b"expecting value")),
        }
    }

    /// Puts a value where it belongs; what was closed by that is a value in turn.
    fn attach(&mut self, open: Open, value: Value) -> Result<Option<Value>, Complaint> {
        match open {
            Open::List(mut items) => {
                items.push(value);
                if self.closes(b']') {
                    return Ok(Some(Value::List(items)));
                }
                self.comma(b"expected separator in list", b"expected ',' or ']'")?;
                self.open.push(Open::List(items));
            }
            Open::Dict(mut entries, key) => {
                if entries.iter().any(|(k, _)| *k == key) {
                    let last = &self.tokens[self.at - 1];
                    return Err(self.fail(last, b"duplicate key", b"duplicate key"));
                }
                entries.push((key, value));
                if self.closes(b'}') {
                    return Ok(Some(Value::Dict(entries)));
                }
                self.comma(b"expected separator in dict", b"expected ',' or '}'")?;
                let key = self.key()?;
                self.open.push(Open::Dict(entries, key));
            }
        }
        Ok(None)
    }

    fn closes(&mut self, mark: u8) -> bool {
        let closed = self.tokens.get(self.at).is_some_and(|token| token.what == What::Mark(mark));
        self.at += usize::from(closed);
        closed
    }

    fn comma(&mut self, older: &[u8], newer: &[u8]) -> Result<(), Complaint> {
        let token = self.next()?;
        match token.what == What::Mark(b',') {
            true => Ok(()),
            false => Err(self.fail(token, older, newer)),
        }
    }

    /// A key and the colon behind it.
    fn key(&mut self) -> Result<Vec<u8>, Complaint> {
        let token = self.next()?;
        let nested = matches!(token.what, What::Mark(b'{' | b'['));
        let key = match &token.what {
            What::Text(_) => self.scalar(token)?,
            _ if self.newer || nested => Value::Null,
            _ => self.scalar(token)?,
        };
        let Value::Text(key) = key else {
            return Err(self.fail(token, b"key is not a string in object", b"expecting key"));
        };
        let token = self.next()?;
        match token.what == What::Mark(b':') {
            true => Ok(key),
            false => Err(self.fail(token, b"missing : in object pair", b"expecting ':'")),
        }
    }
}

fn stray(token: &Token, newer: bool) -> Complaint {
    let text: &[u8] = if let What::Stray(text) = &token.what { text } else { b"" };
    fail(token, newer, &[b"stray '", text, b"'"].concat())
}

fn fail(token: &Token, newer: bool, words: &[u8]) -> Complaint {
    let place = if newer { format!("{}:{}: ", token.line, token.column) } else { String::new() };
    Complaint::new(&[place.as_bytes(), b"JSON parse error, ", words])
}

fn too_deep() -> Complaint {
    Complaint::new(&[b"JSON nesting depth limit exceeded"])
}

/// A value as qemu-img prints it on one line: `{"a": 1}`, dictionaries in its order.
pub fn print(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(on) => out.extend(if *on { b"true".as_slice() } else { b"false" }),
        Value::Int(n) => out.extend(n.to_string().bytes()),
        Value::Uint(n) => out.extend(n.to_string().bytes()),
        Value::Float(n) => out.extend(n.to_string().bytes()),
        Value::Text(text) => lex::quote(text, out),
        Value::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                out.extend(if i > 0 { b", ".as_slice() } else { b"" });
                write(item, out);
            }
            out.push(b']');
        }
        Value::Dict(entries) => {
            let mut ordered: Vec<(&[u8], &Value)> = entries.iter().map(|(k, v)| (k.as_slice(), v)).collect();
            super::qdict::order(&mut ordered);
            out.push(b'{');
            for (i, (key, item)) in ordered.into_iter().enumerate() {
                out.extend(if i > 0 { b", ".as_slice() } else { b"" });
                lex::quote(key, out);
                out.extend(b": ");
                write(item, out);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests;
