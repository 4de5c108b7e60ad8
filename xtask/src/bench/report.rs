//! What the benchmark prints and keeps.

use super::Figures;
use super::rows::Row;
use super::timing::{Contender, Times};
use crate::shell;
use serde_json::{Value, json};
use std::path::Path;

/// A run, as it goes on.
pub struct Report {
    machine: Value,
    versions: Value,
    rounds: usize,
    rows: Vec<Value>,
}

const WIDTHS: &str =
    "question                        | program    |  min ms |  p25 ms |  median | ratio p25 | ratio med | target";

impl Report {
    /// Looks at the machine and the programs.
    pub fn new(instar: &Path, qemu_img: &Path, rounds: usize) -> Result<Report, String> {
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let qemu = shell::output(shell::program(qemu_img).arg("--version")).map(first_line)?;
        let own = shell::output(shell::program(instar).arg("--version")).map_or_else(|e| e, first_line);
        let rustc = shell::output(shell::program("rustc").arg("--version")).map_or_else(|e| e, first_line);
        let commit = shell::output(shell::program("git").args(["describe", "--always", "--dirty"])).unwrap_or_default();
        let versions = json!({ "qemu-img": qemu, "instar": own, "commit": commit.trim(), "rustc": rustc });
        Ok(Report { machine: machine(), versions, rounds, rows: Vec::new() })
    }

    /// What stands above the table.
    pub fn heading(&self) -> String {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!(
            "{} against {}\n{}, {} cores, load {}, Linux {}; {} rounds in turns, warm cache, whole processes\n\n{WIDTHS}\n{}",
            word(&self.versions["instar"]),
            word(&self.versions["qemu-img"]),
            word(&self.machine["processor"]),
            self.machine["cores"],
            self.machine["load"],
            word(&self.machine["kernel"]),
            self.rounds,
            WIDTHS.replace(|c| c != '|', "-"),
        )
    }

    /// Prints and keeps one question's times; the first contender is the measure of the others.
    pub fn add(&mut self, row: &Row, contenders: &[Contender], times: &[Result<Times, String>]) {
        let measure = times.first().and_then(|times| times.as_ref().ok()).map(Figures::of);
        for (contender, times) in contenders.iter().zip(times) {
            let head = format!("{:<32}| {:<11}|", row.name, contender.name);
            let kept = json!({ "verb": row.verb, "question": row.name, "program": contender.name });
            let figures = match times {
                Ok(times) => Figures::of(times),
                Err(why) => {
                    println!("{head} cannot take part: {why}");
                    self.keep(kept, json!({ "failed": why }));
                    continue;
                }
            };
            let ratio =
                |of: fn(&Figures) -> f64| measure.as_ref().map_or(f64::NAN, |measure| of(&figures) / of(measure));
            let (quartiles, medians) = (ratio(|f| f.quartile), ratio(|f| f.median));
            let target = row.targets.iter().find(|(name, _)| *name == contender.name).map(|(_, target)| *target);
            let counts = if row.moves { quartiles } else { medians };
            let verdict = target.map(|target| if counts <= target { "met" } else { "missed" });
            let told = target.zip(verdict).map_or("–".into(), |(target, verdict)| format!("≤ {target}: {verdict}"));
            let Figures { min, quartile, median } = figures;
            println!(
                "{head} {min:>7.3} | {quartile:>7.3} | {median:>7.3} | {quartiles:>9.2} | {medians:>9.2} | {told}"
            );
            let round = |value: f64| (value * 1e3).round() / 1e3;
            self.keep(
                kept,
                json!({
                    "min_ms": round(min), "p25_ms": round(quartile), "median_ms": round(median),
                    "ratio_p25": round(quartiles), "ratio_median": round(medians),
                    "target": target, "verdict": verdict,
                }),
            );
        }
    }

    fn keep(&mut self, mut row: Value, more: Value) {
        if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
            row.extend(more);
        }
        self.rows.push(row);
    }

    /// Writes everything, keeping what an earlier run said about verbs that this one did not ask about.
    pub fn write(self, path: &Path) -> Result<(), String> {
        let earlier = std::fs::read_to_string(path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let asked = |row: &Value| self.rows.iter().any(|own| own["verb"] == row["verb"]);
        let mut rows: Vec<Value> = earlier.iter().flat_map(|e| e["rows"].as_array()).flatten().cloned().collect();
        rows.retain(|row| !asked(row));
        rows.extend(self.rows.iter().cloned());
        let all = json!({ "machine": self.machine, "versions": self.versions, "rounds": self.rounds, "rows": rows });
        let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())?;
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folder.and_then(|()| std::fs::write(path, text + "\n")).map_err(|e| format!("{}: {e}", path.display()))
    }
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
        line.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        // More than a part of a core means that others were at work, and that medians say little.
        "load": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}
