//! getopt_long's way of reading a command line, as an iterator of options and words.

/// One way to write an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// The name after `--`.
    pub long: Option<&'static str>,
    /// The letter after `-`.
    pub short: Option<u8>,
    /// Whether a value follows.
    pub takes: bool,
    /// The name under which the rest of the program knows the option.
    pub key: &'static str,
}

/// What to do with a word that is no option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// End there, leaving it and all after it.
    Stop,
    /// Yield it and go on.
    Yield,
}

/// A piece of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An option with its value.
    Option(&'static str, Option<Vec<u8>>),
    /// A word that is no option.
    Word(Vec<u8>),
}

/// Why an option could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such letter; with the word that the oldest dialect names instead.
    UnknownShort(u8, Vec<u8>),
    /// No such name, as typed.
    UnknownLong(Vec<u8>),
    /// The typed abbreviation of several names.
    Ambiguous(Vec<u8>, Vec<&'static str>),
    /// A name that takes no value was given one; with the word as typed.
    Needless(&'static str, Vec<u8>),
    /// The value of a letter is missing; with the word as typed.
    MissingShort(u8, Vec<u8>),
    /// The value of a name is missing; with the word as typed.
    MissingLong(&'static str, Vec<u8>),
}

/// A walk over the words of a command line; the first word is the program's or the verb's name.
#[derive(Debug)]
pub struct Scan<'a> {
    argv: &'a [Vec<u8>],
    spellings: &'a [Spelling],
    words: Words,
    at: usize,
    cluster: usize,
    last_word: Option<usize>,
    ended: bool,
}

impl<'a> Scan<'a> {
    /// Begins behind the first word.
    pub fn new(argv: &'a [Vec<u8>], spellings: &'a [Spelling], words: Words) -> Scan<'a> {
        Scan { argv, spellings, words, at: 1, cluster: 0, last_word: None, ended: false }
    }

    /// The words not read yet.
    pub fn rest(&self) -> &'a [Vec<u8>] {
        &self.argv[self.at.min(self.argv.len())..]
    }

    /// Whether `--` has been passed.
    pub fn options_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next word whatever it looks like.
    pub fn take_word(&mut self) -> Option<Vec<u8>> {
        let word = self.argv.get(self.at)?.clone();
        self.at += 1;
        Some(word)
    }

    /// The next piece, `None` at the end.
    pub fn step(&mut self) -> Option<Result<Item, Fault>> {
        let word = self.argv.get(self.at)?;
        if self.cluster > 0 {
            return Some(self.letter(word));
        }
        let dashed = word.len() > 1 && word[0] == b'-';
        match (self.ended, dashed) {
            (false, true) if word == b"--" => {
                self.ended = true;
                self.at += 1;
                self.step()
            }
            (false, true) if word[1] == b'-' => {
                self.at += 1;
                Some(self.long(word))
            }
            (false, true) => {
                self.cluster = 1;
                Some(self.letter(word))
            }
            _ if self.words == Words::Stop => None,
            _ => {
                self.last_word = Some(self.at);
                self.at += 1;
                Some(Ok(Item::Word(word.clone())))
            }
        }
    }

    fn letter(&mut self, word: &[u8]) -> Result<Item, Fault> {
        let letter = word[self.cluster];
        let tail = &word[self.cluster + 1..];
        let before = self.last_word.unwrap_or(self.at - 1);
        self.cluster += 1;
        if tail.is_empty() {
            self.cluster = 0;
            self.at += 1;
        }
        let found = self.spellings.iter().find(|s| s.short == Some(letter));
        let Some(spelling) = found else {
            let shown = if tail.is_empty() { word } else { &self.argv[before] };
            return Err(Fault::UnknownShort(letter, shown.to_vec()));
        };
        if !spelling.takes {
            return Ok(Item::Option(spelling.key, None));
        }
        if tail.is_empty() {
            let missing = || Fault::MissingShort(letter, word.to_vec());
            let value = self.take_word().ok_or_else(missing)?;
            return Ok(Item::Option(spelling.key, Some(value)));
        }
        self.cluster = 0;
        self.at += 1;
        Ok(Item::Option(spelling.key, Some(tail.to_vec())))
    }

    fn long(&mut self, word: &[u8]) -> Result<Item, Fault> {
        let typed = &word[2..];
        let split = typed.iter().position(|b| *b == b'=');
        let name = &typed[..split.unwrap_or(typed.len())];
        let spelling = self.named(name, word)?;
        let long = spelling.long.unwrap_or_default();
        let glued = split.map(|at| typed[at + 1..].to_vec());
        match (spelling.takes, glued) {
            (false, Some(_)) => Err(Fault::Needless(long, word.to_vec())),
            (false, None) => Ok(Item::Option(spelling.key, None)),
            (true, Some(value)) => Ok(Item::Option(spelling.key, Some(value))),
            (true, None) => {
                let missing = || Fault::MissingLong(long, word.to_vec());
                let value = self.take_word().ok_or_else(missing)?;
                Ok(Item::Option(spelling.key, Some(value)))
            }
        }
    }

    /// The spelling meant by a full or abbreviated name.
    fn named(&self, name: &[u8], word: &[u8]) -> Result<&'a Spelling, Fault> {
        let longs = || self.spellings.iter().filter_map(|s| s.long.map(|long| (s, long)));
        if let Some((exact, _)) = longs().find(|(_, long)| long.as_bytes() == name) {
            return Ok(exact);
        }
        let mut fits = longs().filter(|(_, long)| long.as_bytes().starts_with(name));
        let unknown = || Fault::UnknownLong(word.to_vec());
        let (first, long) = fits.next().ok_or_else(unknown)?;
        let others = fits.filter(|(s, _)| (s.takes, s.key) != (first.takes, first.key));
        let names: Vec<&'static str> = [long].into_iter().chain(others.map(|o| o.1)).collect();
        match names.len() {
            1 => Ok(first),
            _ => Err(Fault::Ambiguous(word.to_vec(), names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPELLINGS: &[Spelling] = &[
        Spelling { long: Some("format"), short: Some(b'f'), takes: true, key: "format" },
        Spelling { long: Some("force"), short: None, takes: false, key: "force" },
        Spelling { long: None, short: Some(b'q'), takes: false, key: "quiet" },
    ];

    fn read(line: &str, words: Words) -> Vec<Result<Item, Fault>> {
        let argv: Vec<Vec<u8>> = line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
        let mut scan = Scan::new(&argv, SPELLINGS, words);
        std::iter::from_fn(|| scan.step()).collect()
    }

    fn option(key: &'static str, value: Option<&str>) -> Result<Item, Fault> {
        Ok(Item::Option(key, value.map(|v| v.as_bytes().to_vec())))
    }

    fn word(text: &str) -> Result<Item, Fault> {
        Ok(Item::Word(text.as_bytes().to_vec()))
    }

    #[test]
    fn options_stand_anywhere_and_in_every_spelling() {
        let got = read("v a -qfx -f y --form=z --forc b -- -q", Words::Yield);
        let want = [
            word("a"),
            option("quiet", None),
            option("format", Some("x")),
            option("format", Some("y")),
            option("format", Some("z")),
            option("force", None),
            word("b"),
            word("-q"),
        ];
        assert_eq!(got, want);
        assert_eq!(read("v - -q", Words::Stop), []);
    }

    #[test]
    fn faults_name_what_was_typed() {
        let fault = |line| read(line, Words::Yield).pop().unwrap().unwrap_err();
        assert_eq!(fault("v --fo=1"), Fault::Ambiguous(b"--fo=1".into(), vec!["format", "force"]));
        assert_eq!(fault("v --force=1"), Fault::Needless("force", b"--force=1".into()));
        assert_eq!(fault("v -qf"), Fault::MissingShort(b'f', b"-qf".into()));
        assert_eq!(fault("v a --form"), Fault::MissingLong("format", b"--form".into()));
        assert_eq!(fault("v --x=2"), Fault::UnknownLong(b"--x=2".into()));
        assert_eq!(fault("v -qZ"), Fault::UnknownShort(b'Z', b"-qZ".into()));
        let first = |line| read(line, Words::Yield).into_iter().find_map(Result::err).unwrap();
        assert_eq!(first("v a -q -Zq"), Fault::UnknownShort(b'Z', b"a".into()));
        assert_eq!(first("v -f x -Zq"), Fault::UnknownShort(b'Z', b"x".into()));
    }
}
