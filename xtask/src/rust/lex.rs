//! Cuts Rust text into tokens and comments.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A keyword or a name.
    Word,
    /// `'a`.
    Lifetime,
    /// A number.
    Number,
    /// A string, a byte string or a character.
    Text,
    /// One character of anything else.
    Mark,
}

/// A piece of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// As written.
    pub text: &'a str,
    /// Line it begins on, from 1.
    pub line: usize,
}

/// A comment, block or to the end of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comment<'a> {
    /// As written, slashes included.
    pub text: &'a str,
    /// Line it begins on, from 1.
    pub line: usize,
    /// Line it ends on.
    pub end: usize,
}

/// The tokens and the comments of a text.
pub fn lex(text: &str) -> (Vec<Token<'_>>, Vec<Comment<'_>>) {
    let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::new(), comments: Vec::new() };
    while lexer.at < text.len() {
        lexer.step();
    }
    (lexer.tokens, lexer.comments)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
    comments: Vec<Comment<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self) {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("//") {
            self.comment(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.comment(block_comment_len(rest));
        } else if let Some(len) = string_len(rest) {
            self.push(Kind::Text, len);
        } else if first == '\'' {
            match char_len(rest) {
                Some(len) => self.push(Kind::Text, len),
                None => self.push(Kind::Lifetime, 1 + word_len(rest.get(1..).unwrap_or_default())),
            }
        } else if first.is_ascii_digit() {
            self.push(Kind::Number, number_len(rest));
        } else if first == '_' || first.is_alphabetic() {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            self.push(Kind::Word, raw + word_len(rest.get(raw..).unwrap_or_default()));
        } else {
            self.push(Kind::Mark, first.len_utf8());
        }
    }

    fn skip(&mut self, len: usize) {
        self.line += self.rest().get(..len).unwrap_or_default().matches('\n').count();
        self.at += len;
    }

    fn push(&mut self, kind: Kind, len: usize) {
        let text = self.rest().get(..len).unwrap_or_default();
        self.tokens.push(Token { kind, text, line: self.line });
        self.skip(len.max(1));
    }

    fn comment(&mut self, len: usize) {
        let (text, line) = (self.rest().get(..len).unwrap_or_default(), self.line);
        self.skip(len.max(1));
        self.comments.push(Comment { text, line, end: self.line });
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
}

fn number_len(text: &str) -> usize {
    let whole = word_len(text);
    let mut after = text.get(whole..).unwrap_or_default().chars();
    // `1.5` is one number, `0..5` and `0.max(1)` are not.
    if after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()) {
        return whole + 1 + word_len(text.get(whole + 1..).unwrap_or_default());
    }
    whole
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string that the text begins with: plain, byte, C, raw.
fn string_len(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|p| {
        let rest = text.strip_prefix(p).unwrap_or_default();
        rest.starts_with('"')
            || p.ends_with('r') && rest.trim_start_matches('#').starts_with('"') && rest.starts_with('#')
    });
    let Some(prefix) = prefix else {
        return text.strip_prefix('b').filter(|rest| rest.starts_with('\'')).and_then(char_len).map(|len| len + 1);
    };
    let body = text.get(prefix.len()..)?;
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = body.get(hashes + 1..)?;
        let len = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix.len() + hashes + 1 + len);
    }
    let mut escaped = true; // the opening quote
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Length of the character that the text begins with, if it is one and no lifetime.
fn char_len(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return text.get(3..)?.find('\'').map(|at| at + 4);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}
