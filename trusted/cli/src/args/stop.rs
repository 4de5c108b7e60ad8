//! Refusals as data: the sentences of an error, and the end of a run that never began.

/// One line beside the sentence of a complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Printed after the program's name.
    Said(Vec<u8>),
    /// Printed after the program's name and `warning: `.
    Warned(Vec<u8>),
    /// Printed as it is.
    Bare(Vec<u8>),
}

impl Note {
    /// The line as it is printed by a program called `prefix`, without its line end.
    pub fn line(&self, prefix: &str) -> Vec<u8> {
        match self {
            Note::Said(text) => say(&[prefix.as_bytes(), b": ", text]),
            Note::Warned(text) => say(&[prefix.as_bytes(), b": warning: ", text]),
            Note::Bare(text) => text.clone(),
        }
    }
}

/// Why something was refused: one sentence, and the lines that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Lines printed before the sentence.
    pub before: Vec<Note>,
    /// The sentence itself, without the program's name.
    pub sentence: Vec<u8>,
    /// Lines printed after the sentence.
    pub after: Vec<Note>,
}

impl Complaint {
    /// A complaint of one sentence made of `parts`.
    pub fn new(parts: &[&[u8]]) -> Complaint {
        Complaint { before: Vec::new(), sentence: say(parts), after: Vec::new() }
    }

    /// The same with a line after it.
    pub fn then(mut self, note: Note) -> Complaint {
        self.after.push(note);
        self
    }

    /// The same with a line before it.
    pub fn first(mut self, note: Note) -> Complaint {
        self.before.push(note);
        self
    }

    /// The same, said about something: `about: sentence`.
    pub fn about(mut self, about: &[u8]) -> Complaint {
        self.sentence = say(&[about, b": ", &self.sentence]);
        self
    }

    /// The same, as the reason why an image could not be opened.
    pub fn not_opened(self, name: &[u8]) -> Complaint {
        self.about(&say(&[b"Could not open '", name, b"'"]))
    }

    /// The lines as a program called `prefix` prints them, without line ends.
    pub fn lines(&self, prefix: &str) -> Vec<Vec<u8>> {
        let sentence = Note::Said(self.sentence.clone());
        let notes = self.before.iter().chain([&sentence]).chain(&self.after);
        notes.map(|note| note.line(prefix)).collect()
    }
}

/// What to print and which code to exit with instead of running a verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Bytes for standard output.
    pub stdout: Vec<u8>,
    /// Lines for standard error, without line ends.
    pub stderr: Vec<Vec<u8>>,
    /// The exit code.
    pub code: u8,
}

impl Stop {
    /// An orderly end that prints `text`.
    pub fn text(text: impl Into<Vec<u8>>) -> Stop {
        Stop { stdout: text.into(), ..Stop::default() }
    }
}

/// Joins the parts of a sentence.
pub fn say(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
