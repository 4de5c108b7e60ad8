//! How far it has come, as qemu-img tells it: on one line that is written over and over.

use instar_broker::sys;
use std::io::{self, Write};

/// A line is written when so many percent more are done.
const STEP: f64 = 1.0;

/// A progress line.
pub struct Progress {
    shown: bool,
    total: u64,
    done: u64,
    /// What the line says.
    said: f64,
}

impl Progress {
    /// Nothing has been done; `shown`: and the user wants to know.
    pub fn new(shown: bool) -> Progress {
        Progress { shown, total: 0, done: 0, said: -STEP }
    }

    /// So much is to be done.
    pub fn begin(&mut self, total: u64) {
        // From now on the signal that asks is heard, and ends nothing.
        sys::was_asked_how_far();
        self.total = total;
        self.say(0.0);
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// So much is to be done after all, of which nothing has been done yet.
    pub fn expect(&mut self, total: u64) {
        (self.total, self.done) = (total, 0);
    }

    /// So much more has been done.
    pub fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        let percent = if self.total == 0 { 100.0 } else { self.done as f64 * 100.0 / self.total as f64 };
        if sys::was_asked_how_far() && !self.shown {
            let _ = writeln!(io::stderr(), "    ({percent:.2}/100%)");
        }
        if percent >= self.said + STEP || self.done >= self.total {
            self.say(percent.min(100.0));
        }
    }

    /// Nothing more will be told; `done`: because all is done.
    pub fn end(&mut self, done: bool) {
        if done {
            self.complete();
        }
        let _ = io::stdout().write_all(self.line_end().as_bytes());
    }

    /// The line says that all is done, and more may follow it.
    pub fn complete(&mut self) {
        self.say(100.0);
    }

    /// What ends the line.
    pub fn line_end(&self) -> &'static str {
        if self.shown { "\n" } else { "" }
    }

    fn say(&mut self, percent: f64) {
        self.said = percent;
        if self.shown {
            let mut out = io::stdout();
            // Who does not listen misses nothing else by it.
            let _ = write!(out, "    ({percent:.2}/100%)\r").and_then(|()| out.flush());
        }
    }
}
