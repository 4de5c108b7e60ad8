//! A Rust file with its brackets matched, its functions found and its tests told apart.

use super::lex::{Comment, Kind, Token, lex};

/// A Rust file, taken apart.
pub struct Source<'a> {
    /// Its path below the root.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Its code.
    pub tokens: Vec<Token<'a>>,
    /// Its comments.
    pub comments: Vec<Comment<'a>>,
    /// For every bracket, the index of its partner; elsewhere, and without one, the token's own.
    pairs: Vec<usize>,
    tests: Vec<(usize, usize)>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// First line, from 1.
    pub line: usize,
    /// How many lines, signature and closing brace included.
    pub lines: usize,
    /// Index of its first token.
    pub from: usize,
    /// Index of its closing brace.
    pub to: usize,
}

impl<'a> Source<'a> {
    /// Takes a file apart.
    pub fn new(path: &'a str, text: &'a str) -> Source<'a> {
        let (tokens, comments) = lex(text);
        let pairs = pair(&tokens);
        let mut source = Source { path, text, tokens, comments, pairs, tests: Vec::new() };
        source.tests = source.find_tests();
        source
    }

    /// The text of the token at an index; nothing beyond the ends.
    pub fn word(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// The text of the token so many before an index.
    pub fn before(&self, at: usize, count: usize) -> &'a str {
        at.checked_sub(count).map_or("", |at| self.word(at))
    }

    /// The kind of the token before an index.
    pub fn kind_before(&self, at: usize) -> Option<Kind> {
        Some(self.tokens.get(at.checked_sub(1)?)?.kind)
    }

    /// The line of a token.
    pub fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    /// Whether the tokens from an index on read like this.
    pub fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.word(at + i) == *word)
    }

    /// Indices of all tokens that are this word in code.
    pub fn all<'s>(&'s self, word: &'s str) -> impl Iterator<Item = usize> + 's {
        (0..self.tokens.len()).filter(move |&at| self.word(at) == word)
    }

    /// The partner of a bracket.
    pub fn partner(&self, at: usize) -> usize {
        self.pairs.get(at).copied().unwrap_or(at)
    }

    /// Whether a token belongs to a test.
    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|&(from, to)| (from..=to).contains(&at))
    }

    /// Index of the first token of the statement or item that a token is part of.
    pub fn statement(&self, at: usize) -> usize {
        let mut from = at;
        while let Some(before) = from.checked_sub(1) {
            match self.word(before) {
                ";" | "{" | "," => break,
                // A block that ended before this statement began; a bracketed group is part of it.
                "}" => break,
                ")" | "]" => from = self.partner(before).min(before),
                _ => from = before,
            }
        }
        from
    }

    /// The comment lines that stand directly above a line, attributes let through, nearest last.
    pub fn above(&self, line: usize) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut from = line.saturating_sub(1);
        while let Some(text) = from.checked_sub(1).and_then(|at| lines.get(at)) {
            let text = text.trim_start();
            if !(text.starts_with("//") || text.starts_with("#[") || text.starts_with('*') || text.starts_with("/*")) {
                break;
            }
            from -= 1;
        }
        lines.get(from..line.saturating_sub(1)).unwrap_or_default().join("\n")
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function<'a>> {
        let found = self.all("fn").filter(|&at| self.tokens.get(at + 1).is_some_and(|t| t.kind == Kind::Word));
        let whole = found.filter_map(|at| {
            let to = self.item_end(at);
            let lines = self.line(to) + 1 - self.line(at);
            let function = Function { name: self.word(at + 1), line: self.line(at), lines, from: at, to };
            (self.word(to) == "}").then_some(function)
        });
        whole.collect()
    }

    /// Name of the innermost function around a token.
    pub fn function_at(&self, at: usize) -> Option<&'a str> {
        let around = self.functions().into_iter().filter(|f| (f.from..=f.to).contains(&at));
        around.min_by_key(|f| f.to - f.from).map(|f| f.name)
    }

    /// Index of the token that ends an item: its closing brace or semicolon.
    pub fn item_end(&self, at: usize) -> usize {
        let mut at = at;
        while at < self.tokens.len() {
            match self.word(at) {
                ";" => return at,
                "{" => return self.partner(at),
                "(" | "[" => at = self.partner(at).max(at) + 1,
                _ => at += 1,
            }
        }
        self.tokens.len().saturating_sub(1)
    }

    fn find_tests(&self) -> Vec<(usize, usize)> {
        let end = self.tokens.len();
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if name == "tests.rs" || name.ends_with("_tests.rs") || self.path.contains("/tests/") {
            return vec![(0, end)];
        }
        let mut found = Vec::new();
        for at in self.all("#") {
            let inner = usize::from(self.word(at + 1) == "!");
            let open = at + 1 + inner;
            if self.reads(open, &["[", "cfg", "("]) || self.reads(open, &["[", "test", "]"]) {
                let close = self.partner(open);
                let words: Vec<&str> = (open..close).map(|at| self.word(at)).collect();
                if words.contains(&"test") && !words.contains(&"not") {
                    found.push(if inner == 1 { (0, end) } else { (at, self.item_end(close + 1)) });
                }
            }
        }
        let blocks = self.all("mod").filter(|&at| self.reads(at, &["mod", "tests", "{"]));
        found.extend(blocks.map(|at| (at, self.item_end(at))));
        found
    }
}

fn pair(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut pairs: Vec<usize> = (0..tokens.len()).collect();
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Mark) {
        match token.text {
            "(" | "[" | "{" => open.push(at),
            ")" | "]" | "}" => {
                if let Some(from) = open.pop() {
                    pairs[from] = at;
                    pairs[at] = from;
                }
            }
            _ => {}
        }
    }
    pairs
}
