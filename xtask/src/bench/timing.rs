//! Runs contenders in turns and takes the time of each whole process.

use crate::shell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program and what it is to do.
pub struct Contender {
    /// What it is called in the table.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its command line.
    pub arguments: Vec<String>,
    /// The file that it makes; gone before each round.
    pub makes: Option<PathBuf>,
    /// Files that it changes, each behind the copy that it is made of before each round.
    pub restores: Vec<(PathBuf, PathBuf)>,
    /// It may have nothing to say.
    pub is_silent: bool,
    /// Variables beyond those of this process.
    pub environment: Vec<(String, String)>,
}

/// One time a round.
pub type Times = Vec<Duration>;

/// What a file system still has to do for a file that was removed must not count for whoever comes next.
const REST: Duration = Duration::from_millis(300);

/// Rounds before it counts, so that all files are in memory.
pub const WARM_UP: usize = 10;

impl Contender {
    /// The same for all: started without a fork of this process's memory, output to nowhere, nothing to read.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Makes everything as it was before the first round.
    fn restore(&self) -> Result<(), String> {
        self.restores.iter().try_for_each(|(kept, to)| copy(kept, to))
    }

    fn time(&self) -> Result<Duration, String> {
        self.restore()?;
        let mut command = self.command();
        if let Some(made) = &self.makes
            && std::fs::remove_file(made).is_ok()
        {
            std::thread::sleep(REST);
        }
        let start = Instant::now();
        let status = command.status().map_err(|e| e.to_string())?;
        let took = start.elapsed();
        if status.success() { Ok(took) } else { Err(status.to_string()) }
    }

    /// Why it cannot take part: it fails, or has nothing to say.
    fn fault(&self) -> Option<String> {
        if let Err(why) = self.restore() {
            return Some(why);
        }
        let output = match self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output() {
            Ok(output) => output,
            Err(e) => return Some(e.to_string()),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        if !output.status.success() {
            return Some(format!("{} {said}", output.status));
        }
        (output.stdout.is_empty() && !self.is_silent).then(|| "prints nothing".to_owned())
    }
}

/// Copies a file with its holes. It is on disk afterwards: nobody's flush is to pay for this.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let fault = |e: std::io::Error| format!("{}: {e}", to.display());
    shell::output(Command::new("cp").arg("--sparse=auto").arg(from).arg(to))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(fault)
}

/// Everybody's times, in turns; each round begins with another one, so that nobody always runs after the same.
pub fn race(contenders: &[Contender], rounds: usize, warm_up: usize) -> Vec<Result<Times, String>> {
    let mut all: Vec<Result<Times, String>> =
        contenders.iter().map(|c| c.fault().map_or(Ok(Vec::with_capacity(rounds)), Err)).collect();
    for round in 0..warm_up + rounds {
        for turn in 0..contenders.len() {
            let who = (round + turn) % contenders.len();
            let Ok(times) = &mut all[who] else { continue };
            match contenders[who].time() {
                Ok(took) if round >= warm_up => times.push(took),
                Ok(_) => {}
                Err(why) => all[who] = Err(why),
            }
        }
    }
    all
}
