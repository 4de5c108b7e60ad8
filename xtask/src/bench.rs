//! Side by side with qemu-img: the same questions, in turns, in one run.

mod report;
mod rows;
mod timing;

use crate::{Done, shell, testing};
use report::Report;
use rows::{Place, Row};
use std::path::{Path, PathBuf};
use timing::{Contender, Times, WARM_UP, race};

/// Rounds unless `--rounds` says otherwise; fewer say little about milliseconds.
const ROUNDS: usize = 300;
/// Of so many rounds, one is enough where data are moved.
const HEAVY_SHARE: usize = 30;

/// What was asked for.
struct Request {
    verbs: Vec<String>,
    rounds: usize,
    build: bool,
    instar: PathBuf,
    qemu_img: PathBuf,
    /// Further programs with qemu-img's grammar, by name.
    others: Vec<(String, PathBuf)>,
}

/// The task: `cargo xtask bench [verb...] [--rounds N] [--no-build] [--instar PATH] [--qemu-img PATH] [--with NAME=PATH]`.
pub fn run(arguments: &[String]) -> Done {
    let mut request = parse(arguments)?;
    if request.build {
        testing::build()?;
        request.instar = testing::shipped();
    }
    let place = Place::new(&request.qemu_img)?;
    let mut report = Report::new(&request.instar, &request.qemu_img, request.rounds)?;
    println!("{}", report.heading());
    let wanted = |row: &&Row| request.verbs.is_empty() || request.verbs.iter().any(|verb| verb == row.verb);
    for row in rows::all().filter(wanted) {
        let image = (row.image)(&place)?;
        let mut contenders = contenders(&request, row, &image, &place.made(&image));
        keep(&place, row, &mut contenders)?;
        // What takes long is measured less often.
        let rounds = if row.moves { request.rounds.div_ceil(HEAVY_SHARE) } else { request.rounds };
        let times = race(&contenders, rounds, if row.moves { 1 } else { WARM_UP });
        report.add(row, &contenders, &times);
    }
    report.write(&shell::root().join("benches/results.json"))
}

/// Puts copies aside of what a row changes.
fn keep(place: &Place, row: &Row, contenders: &mut [Contender]) -> Done {
    for name in row.changes {
        let (from, kept) = (place.path(name), place.path(&format!("{name}.kept")));
        timing::copy(&from, &kept)?;
        contenders.iter_mut().for_each(|contender| contender.restores.push((kept.clone(), from.clone())));
    }
    Ok(())
}

fn contenders(request: &Request, row: &Row, image: &Path, made: &Path) -> Vec<Contender> {
    let words = |image: &Path| -> Vec<String> {
        let word = |word: &&str| match *word {
            ">" => made.display().to_string(),
            word => word.replace("{}", &image.to_string_lossy()),
        };
        row.arguments.iter().map(word).collect()
    };
    let own = words(image);
    let makes = row.arguments.contains(&">").then(|| made.to_path_buf());
    let make = |name: &str, program: &PathBuf, env: &[(&str, &str)]| Contender {
        name: name.to_owned(),
        program: program.clone(),
        arguments: own.clone(),
        makes: makes.clone(),
        restores: Vec::new(),
        is_silent: row.moves || !row.changes.is_empty(),
        environment: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let mut all = vec![make("qemu-img", &request.qemu_img, &[])];
    if let (Some(first), Some(name)) = (all.first_mut(), row.instead) {
        first.arguments = words(&image.with_file_name(name));
    }
    for cell in ["process", "kvm"] {
        all.push(make(cell, &request.instar, &[("INSTAR_CELL", cell)]));
    }
    all.extend(request.others.iter().map(|(name, program)| make(name, program, &[])));
    all
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let mut request = Request {
        verbs: Vec::new(),
        rounds: ROUNDS,
        build: true,
        instar: testing::shipped(),
        qemu_img: PathBuf::from("/usr/bin/qemu-img"),
        others: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => request.rounds = value()?.parse().map_err(|e| format!("--rounds: {e}"))?,
            "--no-build" => request.build = false,
            "--instar" => (request.build, request.instar) = (false, PathBuf::from(value()?)),
            "--qemu-img" => request.qemu_img = PathBuf::from(value()?),
            "--with" => {
                let (name, path) = value()?.split_once('=').ok_or("--with NAME=PATH")?;
                request.others.push((name.to_owned(), PathBuf::from(path)));
            }
            verb if rows::all().any(|row| row.verb == verb) => request.verbs.push(verb.to_owned()),
            other => return Err(format!("no rows for {other:?}")),
        }
    }
    if request.rounds == 0 {
        return Err("--rounds: at least 1".into());
    }
    Ok(request)
}

/// Times in milliseconds at the places that are told.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    min: f64,
    quartile: f64,
    median: f64,
}

impl Figures {
    fn of(times: &Times) -> Figures {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(sorted.len().saturating_sub(1) * part / 4).copied().unwrap_or(f64::NAN);
        Figures { min: at(0), quartile: at(1), median: at(2) }
    }
}

#[cfg(test)]
mod unit {
    use super::Figures;
    use std::time::Duration;

    #[test]
    fn figures_are_taken_from_the_sorted_times() {
        let times = [5, 1, 4, 2, 3].map(Duration::from_millis).to_vec();
        assert_eq!(Figures::of(&times), Figures { min: 1.0, quartile: 2.0, median: 3.0 });
    }
}
